//! Who has shown no credential takes no room from those who have, and nobody's call goes on for ever.

use std::net::SocketAddr;
use std::time::Duration;

use futures::FutureExt as _;
use hodei_jobs::FILE_DESCRIPTOR_SET;
use hodei_jobs::v1;
use hodei_jobs::v1::job_execution_service_client::JobExecutionServiceClient;
use hodei_jobs::v1::log_stream_service_client::LogStreamServiceClient;
use hodei_jobs::v1::server_frame::Frame as ServerKind;
use hodei_jobs::v1::worker_agent_service_client::WorkerAgentServiceClient;
use hodei_jobs::v1::worker_frame::Frame as WorkerKind;
use hodei_server_application::jobs;
use hodei_server_domain::access::table::CLIENT_DOOR;
use hodei_server_interface::listener::Limits;
use http::uri::PathAndQuery;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};

use crate::client_door::authorized;
use crate::worker_door::{Session, admin, queue, reason, register};
use crate::world::{Identity, PATIENCE, World};

const CERTIFICATE_LIFE: Duration = Duration::from_secs(600);

/// Limits under which nothing ends by itself while a test runs.
fn patient() -> Limits {
    Limits {
        connections: 40,
        handshake: PATIENCE * 2,
        stranger_idle: PATIENCE * 2,
        header: PATIENCE * 2,
        ..Limits::default()
    }
}

/// Waits until the other end has closed a connection, whatever it sends before.
async fn closed(mut stream: impl AsyncRead + Unpin) {
    let mut rest = Vec::new();
    // It does not matter whether it was closed or reset.
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest))
        .await
        .expect("closed in time");
}

async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.expect("connected")
}

/// Sends a request over a connection that stays, and returns the head of the answer.
async fn exchange(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), request: &[u8]) -> String {
    stream.write_all(request).await.expect("sent");
    let mut answer = vec![0; 16 << 10];
    let read = tokio::time::timeout(PATIENCE, stream.read(&mut answer))
        .await
        .expect("in time")
        .expect("answered");
    let text = String::from_utf8_lossy(&answer[..read]);
    text.split("\r\n\r\n").next().unwrap_or_default().to_owned()
}

/// Asks for a path, and returns the first line of the answer.
async fn ask(stream: &mut TcpStream, path: &str, token: Option<&str>) -> String {
    let bearer = token.map(|token| format!("Authorization: Bearer {token}\r\n"));
    let bearer = bearer.unwrap_or_default();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{bearer}\r\n");
    let head = exchange(stream, request.as_bytes()).await;
    head.lines().next().unwrap_or_default().to_owned()
}

/// Ways to be there and be nobody.
async fn idle(address: SocketAddr) -> TcpStream {
    connect(address).await
}

/// As [`idle`], in the middle of a handshake, or of a request.
async fn half_done(address: SocketAddr) -> TcpStream {
    let mut stream = connect(address).await;
    stream
        .write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc])
        .await
        .expect("sent");
    stream
}

/// Opens a stream that asks for no token and does not end.
async fn watch_health(channel: Channel) -> Result<Streaming<()>, Status> {
    let mut health = tonic::client::Grpc::new(channel);
    health.ready().await.expect("connected");
    let path = PathAndQuery::from_static("/grpc.health.v1.Health/Watch");
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    let watch = health.server_streaming(Request::new(()), path, codec);
    watch.await.map(tonic::Response::into_inner)
}

async fn lists_jobs(channel: Channel, token: &str) {
    let mut jobs = JobExecutionServiceClient::new(channel);
    jobs.list_jobs(authorized(token, v1::ListJobsRequest::default()))
        .await
        .expect("served");
}

#[tokio::test]
async fn strangers_keep_nobody_out_and_drive_nobody_away() {
    let limits = patient();
    let strangers = limits.strangers();
    let world = World::with_limits(CERTIFICATE_LIFE, limits).await;
    queue(&world).await;
    let (_, _, identity) = register(&world).await;
    let mut session = Session::begin(&world, &identity).await.expect("a session");
    session.assignment().await;
    let mut client = connect(world.client_address).await;
    let unknown = "HTTP/1.1 404 Not Found";
    assert_eq!(ask(&mut client, "/unknown", Some(&world.token)).await, unknown);

    let mut flood = Vec::new();
    for address in [world.address, world.client_address] {
        let mut of_door = Vec::new();
        for _ in 0..100 {
            of_door.push(idle(address).await);
            of_door.push(half_done(address).await);
        }
        flood.push(of_door);
    }
    let mut asked = Vec::new();
    for _ in 0..2 * strangers {
        let mut stream = connect(world.client_address).await;
        assert_eq!(ask(&mut stream, "/healthz", None).await, "HTTP/1.1 200 OK");
        asked.push(stream);
    }
    let mut shaken = Vec::new();
    for _ in 0..2 * strangers {
        shaken.push(world.shaken().await);
    }

    // Those who were there are there, over the same connections.
    assert_eq!(ask(&mut client, "/unknown", Some(&world.token)).await, unknown);
    session.say(WorkerKind::Beat(v1::Beat { n: 1 })).await;
    while !matches!(session.next().await.expect("open"), ServerKind::Beat(_)) {}
    // Others get in.
    lists_jobs(world.client().await, &world.token).await;
    let mut stranger = WorkerAgentServiceClient::new(world.channel(None).await);
    let refused = stranger
        .register_worker(v1::RegisterWorkerRequest::default())
        .await
        .expect_err("no password");
    assert_eq!(refused.code(), Code::PermissionDenied, "it was heard: {refused}");
    Session::begin(&world, &identity).await.expect("another session");
    // The oldest strangers went; the newest did not have to.
    for stream in flood.into_iter().flatten() {
        closed(stream).await;
    }
    for stream in asked.drain(..strangers) {
        closed(stream).await;
    }
    for stream in shaken.drain(..strangers) {
        closed(stream).await;
    }
    let mut newest = asked.pop().expect("one");
    assert_eq!(ask(&mut newest, "/healthz", None).await, "HTTP/1.1 200 OK");
}

#[tokio::test]
async fn the_idle_are_closed_unless_they_are_known() {
    let limits = Limits {
        stranger_idle: Duration::from_secs(2),
        ..patient()
    };
    let world = World::with_limits(CERTIFICATE_LIFE, limits).await;
    let mut known = connect(world.client_address).await;
    let unknown = "HTTP/1.1 404 Not Found";
    assert_eq!(ask(&mut known, "/unknown", Some(&world.token)).await, unknown);
    // One that is being answered is not idle.
    let mut watched = watch_health(world.client().await).await.expect("open to all");
    watched.message().await.expect("the state now");
    // All of these come later, and go.
    let bad_token = {
        let mut stream = connect(world.client_address).await;
        let refused = ask(&mut stream, "/unknown", Some("hodei_tok_wrong")).await;
        assert_eq!(refused, "HTTP/1.1 401 Unauthorized");
        stream
    };
    let open_path = {
        let mut stream = connect(world.client_address).await;
        assert_eq!(
            ask(&mut stream, "/healthz", Some(&world.token)).await,
            "HTTP/1.1 200 OK"
        );
        stream
    };
    let silent = idle(world.client_address).await;
    let shaking = half_done(world.address).await;
    let shaken = world.shaken().await;
    for stream in [bad_token, open_path, silent, shaking] {
        closed(stream).await;
    }
    closed(shaken).await;
    assert!(watched.message().now_or_never().is_none(), "it goes on");
    assert_eq!(
        ask(&mut known, "/unknown", None).await,
        "HTTP/1.1 401 Unauthorized"
    );
}

/// A call of the worker door as HTTP/1, which shows what becomes of its connection.
fn over_http1(method: &str, message: &impl prost::Message) -> Vec<u8> {
    let message = message.encode_to_vec();
    let mut request = format!(
        "POST /hodei.v1.WorkerAgentService/{method} HTTP/1.1\r\nHost: server\r\nTE: trailers\r\n\
         Content-Type: application/grpc\r\nContent-Length: {}\r\n\r\n",
        message.len() + 5
    )
    .into_bytes();
    request.push(0);
    request.extend(u32::try_from(message.len()).expect("small").to_be_bytes());
    request.extend(message);
    request
}

#[tokio::test]
async fn at_the_workers_door_a_strangers_life_is_short() {
    assert_eq!(Limits::of_workers().stranger_life, Some(Duration::from_secs(60)));
    let limits = Limits {
        stranger_life: Some(Duration::from_secs(2)),
        ..patient()
    };
    let world = World::with_limits(CERTIFICATE_LIFE, limits).await;
    queue(&world).await;
    let (_, otp, identity) = register(&world).await;
    let mut session = Session::begin(&world, &identity).await.expect("a session");
    session.assignment().await;
    // The same password with the same key is answered again.
    let again = v1::RegisterWorkerRequest {
        otp,
        csr_der: Identity::request(&identity.key),
    };
    let again = over_http1("RegisterWorker", &again);
    let mut registered = world.shaken().await;
    let succeeds = |head: String| head.starts_with("HTTP/1.1 200") && !head.contains("grpc-status");
    assert!(succeeds(exchange(&mut registered, &again).await));

    // It came later and goes; those who have shown something stay.
    closed(world.shaken().await).await;
    assert!(!exchange(&mut registered, &again).await.is_empty());
    session.say(WorkerKind::Beat(v1::Beat { n: 1 })).await;
    while !matches!(session.next().await.expect("open"), ServerKind::Beat(_)) {}
}

#[tokio::test]
async fn the_known_have_their_bound_too_and_the_next_one_hears_of_it() {
    let limits = Limits {
        connections: 1,
        ..patient()
    };
    let world = World::with_limits(CERTIFICATE_LIFE, limits).await;
    let mut first = connect(world.client_address).await;
    ask(&mut first, "/unknown", Some(&world.token)).await;
    let mut next = JobExecutionServiceClient::new(world.client().await);
    let list = || authorized(&world.token, v1::ListJobsRequest::default());
    let refused = next.list_jobs(list()).await.expect_err("no room");
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::Unavailable, "too_many_connections")
    );
    drop(first);
    let served = async { while next.list_jobs(list()).await.is_err() {} };
    tokio::time::timeout(PATIENCE, served)
        .await
        .expect("there is room again");
}

/// The methods of the client door that have one answer, as the services are compiled.
fn unary_methods() -> Vec<String> {
    let files = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET)
        .expect("descriptors")
        .file;
    let services = files.iter().flat_map(|file| &file.service);
    let unary = services.flat_map(|service| {
        let methods = service.method.iter();
        let unary = methods.filter(|method| !method.server_streaming() && !method.client_streaming());
        unary.map(|method| format!("/hodei.v1.{}/{}", service.name(), method.name()))
    });
    let of_clients = |path: &String| CLIENT_DOOR.iter().any(|(known, _)| known == path);
    unary.filter(of_clients).collect()
}

/// Calls a method and never sends the message that it waits for.
async fn never_asks(channel: Channel, path: &str, token: &str) -> Status {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.expect("connected");
    let request = authorized(token, futures::stream::pending::<()>());
    let path = PathAndQuery::try_from(path).expect("a path");
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    client
        .streaming(request, path, codec)
        .await
        .map(|_| ())
        .expect_err("nothing was asked")
}

#[tokio::test]
async fn requests_that_never_end_take_nobodys_place() {
    let world = World::with_limits(CERTIFICATE_LIFE, patient()).await;
    let register = "/hodei.v1.WorkerAgentService/RegisterWorker";
    let nobody = v1::RegisterWorkerRequest::default;
    let mut slow = JoinSet::new();
    // More in all than are served at once.
    for _ in 0..4 {
        let channel = world.channel(None).await;
        for _ in 0..16 {
            let channel = channel.clone();
            slow.spawn(async move { never_asks(channel, register, "").await });
        }
        // When one more is too many, the server has them.
        let mut one_more = WorkerAgentServiceClient::new(channel);
        let are_there = async {
            let mut said = String::new();
            while said != "try_again" {
                let refused = one_more.register_worker(nobody()).await;
                said = reason(&refused.expect_err("no password"));
            }
        };
        tokio::time::timeout(PATIENCE, are_there).await.expect("in time");
    }
    let mut stranger = WorkerAgentServiceClient::new(world.channel(None).await);
    let refused = stranger.register_worker(nobody()).await.expect_err("no password");
    assert_eq!(refused.code(), Code::PermissionDenied, "it was heard: {refused}");

    let clients = world.client().await;
    let mut watches = Vec::new();
    let refused = loop {
        match watch_health(clients.clone()).await {
            Ok(watch) => watches.push(watch),
            Err(refused) => break refused,
        }
    };
    assert_eq!((watches.len(), reason(&refused).as_str()), (16, "try_again"));
    lists_jobs(clients, &world.token).await;
}

#[tokio::test]
async fn every_call_is_answered_in_time_and_streams_go_on() {
    let limits = Limits {
        call: Duration::from_secs(2),
        ..patient()
    };
    let world = World::with_limits(CERTIFICATE_LIFE, limits).await;
    let job = queue(&world).await;
    let job_id = job.to_string();
    let mut client = JobExecutionServiceClient::new(world.client().await);
    let watch = v1::WatchJobRequest {
        job_id: job_id.clone(),
    };
    let watch = client.watch_job(authorized(&world.token, watch));
    let mut watch = watch.await.expect("watched").into_inner();
    let mut logs = LogStreamServiceClient::new(world.client().await);
    let read = v1::ReadOutputRequest {
        job_id,
        follow: true,
        ..v1::ReadOutputRequest::default()
    };
    let read = authorized(&world.token, read);
    // Its answer begins when the job does, or never will.
    let read = tokio::spawn(async move { logs.read_output(read).await });

    let methods = unary_methods();
    let (channel, token) = (world.client().await, world.token.as_str());
    let late = futures::future::join_all(methods.iter().map(|path| {
        let channel = channel.clone();
        async move { (path, never_asks(channel, path, token).await) }
    }));
    let late = tokio::time::timeout(PATIENCE, late).await.expect("in time");
    assert!(late.len() > 10);
    for (path, status) in late {
        let why = (status.code(), reason(&status));
        assert_eq!(
            why,
            (Code::DeadlineExceeded, "deadline_exceeded".to_owned()),
            "{path}"
        );
    }

    // The streams are older than those calls were.
    jobs::cancel(&world.platform, &admin(), job, String::new())
        .await
        .expect("cancelled");
    let to_the_end = async {
        let mut last = None;
        while let Some(answer) = watch.message().await.expect("well") {
            last = answer.job;
        }
        assert_eq!(last.expect("a job").state(), v1::JobState::Cancelled);
        let mut read = read.await.expect("no panic").expect("read").into_inner();
        while read.message().await.expect("well").is_some() {}
    };
    tokio::time::timeout(PATIENCE, to_the_end).await.expect("in time");
}

#[tokio::test]
async fn plain_http_at_a_door_with_tls_is_told_so() {
    let world = World::with_limits(CERTIFICATE_LIFE, patient()).await;
    for request in [
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let mut stream = connect(world.address).await;
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer))
            .await
            .expect("in time")
            .expect("closed, not reset");
        assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
        assert!(answer.contains("This port speaks TLS only"), "{answer}");
    }
}
