use std::path::Path;

use hodei_jobs::FILE_DESCRIPTOR_SET;
use hodei_jobs::v1;
use hodei_jobs::v1::job_execution_service_client::JobExecutionServiceClient;
use hodei_jobs::v1::log_stream_service_client::LogStreamServiceClient;
use hodei_jobs::v1::scheduler_service_client::SchedulerServiceClient;
use hodei_server_bin::settings::Mode;
use http::uri::PathAndQuery;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use crate::world::Server;

pub(crate) fn authorized<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let value = format!("Bearer {token}").parse().expect("a value");
    request.metadata_mut().insert("authorization", value);
    request
}

/// Calls a method with an empty message.
async fn call(channel: &Channel, path: &str, authorization: Option<&str>) -> Result<(), Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.expect("connected");
    let mut request = Request::new(());
    if let Some(value) = authorization {
        request
            .metadata_mut()
            .insert("authorization", value.parse().expect("a value"));
    }
    let path = PathAndQuery::try_from(path).expect("a path");
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    client.unary(request, path, codec).await.map(|_| ())
}

fn methods() -> Vec<String> {
    let files = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET)
        .expect("descriptors")
        .file;
    let services = files
        .iter()
        .filter(|file| file.package() == "hodei.v1")
        .flat_map(|file| &file.service);
    let paths = services.flat_map(|service| {
        service
            .method
            .iter()
            .map(|method| format!("/hodei.v1.{}/{}", service.name(), method.name()))
    });
    paths.collect()
}

async fn http(server: &Server, request: &str) -> String {
    let address = server.ready.address.strip_prefix("http://").expect("plain HTTP");
    let mut stream = TcpStream::connect(address).await.expect("connected");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answered");
    answer
}

/// A connection over the socket of this machine.
async fn over_socket(server: &Server) -> Channel {
    let socket = server.ready.socket.clone();
    let connector = tower::service_fn(move |_: http::Uri| {
        let socket = socket.clone();
        async move {
            UnixStream::connect(socket)
                .await
                .map(hyper_util::rt::TokioIo::new)
        }
    });
    let endpoint = Endpoint::from_static("http://any.name");
    endpoint
        .connect_with_connector(connector)
        .await
        .expect("connected")
}

#[tokio::test]
async fn no_method_is_served_without_a_valid_token_and_every_bad_one_hears_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(Mode::Server, folder.path()).await.expect("started");
    let token = server.token();
    let mut others = vec![
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo".to_owned(),
        "/hodei.v1.JobExecutionService/Nothing".to_owned(),
        "/".to_owned(),
    ];
    others.extend(methods());
    assert!(others.len() > 17);
    let cut = format!("Bearer {}", &token[..token.len() - 1]);
    let changed = if token.ends_with('0') { '1' } else { '0' };
    let changed = format!("{cut}{changed}");
    let basic = format!("Basic {token}");
    let channels = [server.channel().await, over_socket(&server).await];
    for (channel, path) in channels
        .iter()
        .flat_map(|channel| others.iter().map(move |path| (channel, path)))
    {
        let mut heard = Vec::new();
        for authorization in [
            None,
            Some("Bearer garbage"),
            Some("Bearer "),
            Some(&cut),
            Some(&changed),
            Some(&basic),
            Some(&token),
        ] {
            let refused = call(channel, path, authorization).await.expect_err(path);
            assert_eq!(
                refused.code(),
                Code::Unauthenticated,
                "{path} with {authorization:?}: {refused}"
            );
            heard.push(refused.message().to_owned());
        }
        heard.dedup();
        assert_eq!(heard.len(), 1, "{path}: {heard:?}");
    }
    let [channel, _] = channels;
    let mut jobs = JobExecutionServiceClient::new(channel.clone());
    let list = authorized(&token, v1::ListJobsRequest::default());
    let listed = jobs.list_jobs(list).await.expect("served").into_inner();
    assert_eq!(listed.jobs, [], "no call had an effect");
    let bearer = format!("Bearer {token}");
    for path in [
        "/hodei.v1.JobExecutionService/Nothing",
        "/hodei.v1.WorkerAgentService/RegisterWorker",
    ] {
        let refused = call(&channel, path, Some(&bearer)).await.expect_err(path);
        assert_eq!(refused.code(), Code::Unimplemented, "{path}: {refused}");
    }
    call(&channel, "/grpc.health.v1.Health/Check", None)
        .await
        .expect("open");
    server.stop().await.expect("ended well");
}

#[tokio::test]
async fn http_answers_known_names_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(Mode::Server, folder.path()).await.expect("started");
    let get = |host: &str| format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    for host in ["localhost", "127.0.0.1:9"] {
        let answer = http(&server, &get(host)).await;
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok\n"),
            "{host}: {answer}"
        );
    }
    let answer = http(&server, &get("evil.example")).await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    let other = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let answer = http(&server, other).await;
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    let elsewhere = Endpoint::from_shared(server.ready.address.clone())
        .expect("a URL")
        .origin("http://evil.example".parse().expect("a URL"));
    let channel = elsewhere.connect().await.expect("connected");
    let refused = call(&channel, "/grpc.health.v1.Health/Check", None)
        .await
        .expect_err("refused");
    assert_eq!(refused.code(), Code::PermissionDenied);
    server.stop().await.expect("ended well");
}

fn job(command: &str) -> v1::JobSpec {
    v1::JobSpec {
        command: vec![command.to_owned()],
        ..v1::JobSpec::default()
    }
}

fn queue(request_id: &str, spec: v1::JobSpec) -> v1::QueueJobRequest {
    v1::QueueJobRequest {
        request_id: request_id.to_owned(),
        spec: Some(spec),
        namespace: String::new(),
    }
}

#[tokio::test]
async fn a_job_is_queued_watched_cancelled_and_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(Mode::Server, folder.path()).await.expect("started");
    let token = server.token();
    let mut jobs = JobExecutionServiceClient::new(server.channel().await);
    let queued = jobs
        .queue_job(authorized(&token, queue("r1", job("true"))))
        .await
        .expect("queued");
    let id = queued.into_inner().job.expect("a job").id;
    let again = jobs
        .queue_job(authorized(&token, queue("r1", job("true"))))
        .await
        .expect("the same");
    assert_eq!(again.into_inner().job.expect("a job").id, id);
    let other = jobs
        .queue_job(authorized(&token, queue("r1", job("false"))))
        .await
        .expect_err("reused");
    assert_eq!(other.code(), Code::AlreadyExists);
    let info = other.get_details_error_info().expect("a reason");
    assert_eq!(info.reason, "request_id_reused");

    let watch = v1::WatchJobRequest { job_id: id.clone() };
    let mut watch = jobs
        .watch_job(authorized(&token, watch))
        .await
        .expect("watched")
        .into_inner();
    let first = watch
        .message()
        .await
        .expect("well")
        .expect("the state now")
        .job
        .expect("a job");
    assert_eq!(
        (first.state(), first.reason.as_str()),
        (v1::JobState::Queued, "waiting_for_room")
    );
    let cancel = v1::CancelJobRequest {
        job_id: id.clone(),
        reason: "no\nneed".to_owned(),
    };
    let cancelled = jobs
        .cancel_job(authorized(&token, cancel))
        .await
        .expect("cancelled")
        .into_inner();
    let cancelled = cancelled.job.expect("a job");
    assert_eq!(
        (cancelled.state(), cancelled.message.as_str()),
        (v1::JobState::Cancelled, "no\\nneed")
    );
    let last = watch
        .message()
        .await
        .expect("well")
        .expect("its end")
        .job
        .expect("a job");
    assert_eq!(last.state(), v1::JobState::Cancelled);
    assert!(watch.message().await.expect("well").is_none());

    let mut logs = LogStreamServiceClient::new(server.channel().await);
    let read = v1::ReadOutputRequest {
        job_id: id.clone(),
        follow: true,
        ..v1::ReadOutputRequest::default()
    };
    let mut read = logs
        .read_output(authorized(&token, read))
        .await
        .expect("read")
        .into_inner();
    let mut events = Vec::new();
    while let Some(event) = read.message().await.expect("well") {
        events.push(event.event.expect("an event"));
    }
    assert!(matches!(events.last(), Some(v1::read_output_response::Event::End(end)) if end.attempt_ended));

    let mut scheduler = SchedulerServiceClient::new(server.channel().await);
    let why = v1::WhyJobRequest { job_id: id.clone() };
    let why = scheduler
        .why_job(authorized(&token, why))
        .await
        .expect("why")
        .into_inner();
    assert_eq!(why.state(), v1::JobState::Cancelled);
    server.stop().await.expect("ended well");

    // After a restart the job, the token and the address are the same.
    let address = |folder: &Path| std::fs::read_to_string(folder.join("ports")).expect("kept");
    let before = address(folder.path());
    let server = Server::start(Mode::Server, folder.path()).await.expect("started");
    assert_eq!(address(folder.path()), before);
    let mut jobs = JobExecutionServiceClient::new(server.channel().await);
    let get = v1::GetJobRequest { job_id: id };
    let kept = jobs
        .get_job(authorized(&token, get))
        .await
        .expect("kept")
        .into_inner();
    assert_eq!(kept.job.expect("a job").state(), v1::JobState::Cancelled);
    server.stop().await.expect("ended well");
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(Mode::Server, folder.path()).await.expect("started");
    let token = server.token();
    let mut jobs = JobExecutionServiceClient::new(server.channel().await);
    let broken = v1::JobSpec {
        isolation: "castle".into(),
        ..v1::JobSpec::default()
    };
    let refused = jobs
        .queue_job(authorized(&token, queue("r", broken)))
        .await
        .expect_err("broken");
    let fields = refused
        .get_details_bad_request()
        .expect("fields")
        .field_violations;
    let fields: Vec<_> = fields.iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(
        (refused.code(), fields),
        (Code::InvalidArgument, vec!["command", "isolation"])
    );
    let large = v1::JobSpec {
        script: "x".repeat(1_500_000),
        ..v1::JobSpec::default()
    };
    let refused = jobs
        .queue_job(authorized(&token, queue("r", large)))
        .await
        .expect_err("large");
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("larger than 1MiB"), "{refused}");
    for id in ["", "../../etc/passwd", "00000000000000000000000000"] {
        let get = v1::GetJobRequest {
            job_id: id.to_owned(),
        };
        let refused = jobs.get_job(authorized(&token, get)).await.expect_err("unknown");
        assert_eq!(refused.code(), Code::NotFound, "{id}");
    }
    for number in 0..3 {
        let request = queue(&format!("r{number}"), job("true"));
        jobs.queue_job(authorized(&token, request)).await.expect("queued");
    }
    let mut page = v1::ListJobsRequest {
        page_size: 2,
        ..v1::ListJobsRequest::default()
    };
    let mut sizes = Vec::new();
    loop {
        let listed = jobs
            .list_jobs(authorized(&token, page.clone()))
            .await
            .expect("listed")
            .into_inner();
        sizes.push(listed.jobs.len());
        if listed.next_page_token.is_empty() {
            break;
        }
        page.page_token = listed.next_page_token;
    }
    assert_eq!(sizes, [2, 1]);
    server.stop().await.expect("ended well");
}

#[tokio::test]
async fn the_socket_asks_for_a_token_too_and_a_second_server_is_turned_away() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(Mode::Server, folder.path()).await.expect("started");
    let mut jobs = JobExecutionServiceClient::new(over_socket(&server).await);
    let refused = jobs
        .list_jobs(v1::ListJobsRequest::default())
        .await
        .expect_err("no token");
    assert_eq!(refused.code(), Code::Unauthenticated);
    let list = authorized(&server.token(), v1::ListJobsRequest::default());
    jobs.list_jobs(list).await.expect("served");

    let second = Server::start(Mode::Server, folder.path())
        .await
        .err()
        .expect("turned away");
    assert!(
        second
            .to_string()
            .starts_with("another server uses the data folder"),
        "{second:#}"
    );
    server.stop().await.expect("ended well");
}
