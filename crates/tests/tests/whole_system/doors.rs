//! Who gets in: one server to a data folder, and clients with a token.

use hodei_jobs::FILE_DESCRIPTOR_SET;
use hodei_jobs::v1::JobState;
use http::uri::PathAndQuery;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic::{Code, Request, Status};

use crate::client::{Client, assert_end, request, sh};
use crate::platform::Platform;

#[tokio::test(flavor = "multi_thread")]
async fn a_data_folder_has_one_server() {
    let platform = Platform::start().await;
    let client = platform.client().await;
    let mut second = platform.server_command();
    let second = tokio::task::spawn_blocking(move || second.output())
        .await
        .expect("not cancelled");
    let second = second.expect("started");
    let said = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(1), "{said}");
    let folder = platform.data().display().to_string();
    assert!(
        said.contains("error: another server uses the data folder") && said.contains(&folder),
        "{said}"
    );
    assert!(!said.contains("ready "), "{said}");
    // The first one does not notice.
    let job = client.ended(&client.queue(sh("true")).await).await;
    assert_end(&job, (JobState::Succeeded, Some(0), None, "exit_code"));
    let again = platform.client().await;
    assert_eq!(again.list().await.len(), 1);
}

/// The methods of all services.
fn methods() -> Vec<String> {
    let files = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET)
        .expect("descriptors")
        .file;
    let files = files.iter().filter(|file| file.package() == "hodei.v1");
    let paths = files.flat_map(|file| &file.service).flat_map(|service| {
        let path = |method: &str| format!("/hodei.v1.{}/{method}", service.name());
        service.method.iter().map(move |method| path(method.name()))
    });
    paths.collect()
}

async fn call(client: &Client, path: &str, authorization: Option<&str>) -> Result<(), Status> {
    let mut service = tonic::client::Grpc::new(client.channel());
    service.ready().await.expect("connected");
    let mut request = Request::new(());
    if let Some(value) = authorization {
        request
            .metadata_mut()
            .insert("authorization", value.parse().expect("a value"));
    }
    let path = PathAndQuery::try_from(path).expect("a path");
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    service.unary(request, path, codec).await.map(|_| ())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_nothing_is_served() {
    let platform = Platform::start().await;
    let socket = platform.data().join("run/client.sock").display().to_string();
    let token = platform.token();
    let other_end = if token.ends_with('0') { '1' } else { '0' };
    let wrong = format!("Bearer {}{other_end}", &token[..token.len() - 1]);
    let methods = methods();
    assert!(methods.len() >= 15, "{methods:?}");
    for address in [platform.address(), &socket] {
        let client = Client::connect(address, None).await;
        for path in &methods {
            for authorization in [None, Some("Bearer hodei_tok_wrong"), Some(&wrong), Some(&token)] {
                let refused = call(&client, path, authorization).await.expect_err(path);
                assert_eq!(
                    refused.code(),
                    Code::Unauthenticated,
                    "{address}{path}: {refused:?}"
                );
            }
        }
        for token in [None, Some("hodei_tok_wrong")] {
            let stranger = Client::connect(address, token).await;
            let refused = stranger.send(request(sh("true"))).await.expect_err("no token");
            assert_eq!(refused.code(), Code::Unauthenticated);
        }
        let known = Client::connect(address, Some(&token)).await;
        assert_eq!(known.list().await, []);
    }
}
