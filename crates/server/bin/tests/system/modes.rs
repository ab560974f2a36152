use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};

use hodei_jobs::v1;
use hodei_jobs::v1::job_execution_service_client::JobExecutionServiceClient;
use hodei_server_bin::settings::Mode;
use tokio::net::TcpStream;
use tonic::transport::Endpoint;

use crate::client_door::authorized;
use crate::world::Server;

#[tokio::test]
async fn a_commands_server_leaves_nothing_and_removes_what_a_crash_left() {
    let folder = tempfile::tempdir().expect("a folder");
    let left = folder.path().join("local/crashed");
    std::fs::create_dir_all(left.join("workers")).expect("made");
    let one = Server::start(Mode::Local, folder.path()).await.expect("started");
    let two = Server::start(Mode::Local, folder.path())
        .await
        .expect("started beside it");
    assert_ne!(one.ready.socket, two.ready.socket);
    assert!(one.ready.socket.starts_with(folder.path().join("local")));
    two.stop().await.expect("ended well");
    assert!(one.ready.socket.exists(), "the other one goes on");
    one.stop().await.expect("ended well");
    assert!(!left.exists());
    let entries = std::fs::read_dir(folder.path().join("local")).expect("there");
    let folders: Vec<_> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect();
    assert!(folders.is_empty(), "{folders:?}");
}

#[tokio::test]
async fn files_are_private_and_the_token_is_made_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let server = Server::start(Mode::Dev, &data).await.expect("started");
    let mode = |name: &str| {
        std::fs::metadata(data.join(name))
            .expect(name)
            .permissions()
            .mode()
            & 0o777
    };
    for (name, want) in [
        ("", 0o700),
        ("run", 0o700),
        ("run/workers", 0o700),
        ("run/client.sock", 0o600),
        ("run/workers/worker.sock", 0o600),
        ("admin.token", 0o600),
        ("cluster.key", 0o600),
    ] {
        assert_eq!(mode(name), want, "{name}");
    }
    server.stop().await.expect("ended well");
    for socket in ["run/client.sock", "run/workers/worker.sock"] {
        assert!(!data.join(socket).exists(), "{socket} stays");
    }
    std::fs::remove_file(data.join("admin.token")).expect("removed");
    let server = Server::start(Mode::Dev, &data).await.expect("started");
    assert!(!data.join("admin.token").exists(), "the store has a token");
    server.stop().await.expect("ended well");
}

#[tokio::test]
async fn a_token_that_was_written_but_not_kept_is_kept_by_the_next_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let server = Server::start(Mode::Dev, &data).await.expect("started");
    let token = server.token();
    server.stop().await.expect("ended well");
    // A file in a new data folder is what a server leaves that ends between the file and the store.
    let next = folder.path().join("next");
    std::fs::create_dir(&next).expect("made");
    let file = next.join("admin.token");
    std::fs::write(&file, format!("{token}\n")).expect("written");
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(&file, private).expect("set");
    let server = Server::start(Mode::Dev, &next).await.expect("started");
    assert_eq!(server.token(), token);
    assert!(lists_jobs(&server, &token).await);
    server.stop().await.expect("ended well");
    // A file that holds another token is left alone once the store has one.
    let (other, shown) = (
        token_of_another(folder.path()).await,
        std::fs::read_to_string(&file),
    );
    assert_ne!(shown.expect("read").trim_end(), other);
    std::fs::write(&file, format!("{other}\n")).expect("written");
    let server = Server::start(Mode::Dev, &next).await.expect("started");
    assert_eq!(server.token(), other);
    assert!(lists_jobs(&server, &token).await && !lists_jobs(&server, &other).await);
    server.stop().await.expect("ended well");
}

#[tokio::test]
async fn a_token_that_others_could_have_put_there_is_not_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let other = token_of_another(folder.path()).await;
    let data = folder.path().join("data");
    std::fs::create_dir(&data).expect("made");
    for text in [other.as_str(), "no token"] {
        let file = data.join("admin.token");
        std::fs::write(&file, text).expect("written");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).expect("set");
        let _ = std::fs::remove_file(data.join("hodei.db"));
        let server = Server::start(Mode::Dev, &data).await.expect("started");
        assert_ne!(server.token(), text);
        assert!(lists_jobs(&server, &server.token()).await);
        server.stop().await.expect("ended well");
    }
}

async fn token_of_another(folder: &std::path::Path) -> String {
    let server = Server::start(Mode::Dev, &folder.join("another"))
        .await
        .expect("started");
    let token = server.token();
    server.stop().await.expect("ended well");
    token
}

async fn lists_jobs(server: &Server, token: &str) -> bool {
    let mut client = JobExecutionServiceClient::new(server.channel().await);
    let mut request = tonic::Request::new(v1::ListJobsRequest::default());
    let bearer = format!("Bearer {token}").parse().expect("a header");
    request.metadata_mut().insert("authorization", bearer);
    client.list_jobs(request).await.is_ok()
}

/// A server in a process of its own; it ends with this.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn few_descriptors_are_enough_while_strangers_want_them_all() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut limited = Command::new("sh");
    limited
        .args(["-c", "ulimit -n 256 && exec \"$0\" \"$@\""])
        .arg(env!("CARGO_BIN_EXE_hodei-server"))
        .args([
            "--listen",
            "127.0.0.1:0",
            "--worker-listen",
            "127.0.0.1:0",
            "--data-dir",
        ])
        .arg(folder.path())
        .env("HODEI_LOG", "warn")
        .stdin(Stdio::null())
        .stderr(Stdio::piped());
    let mut program = Program(limited.spawn().expect("started"));
    let said = BufReader::new(program.0.stderr.take().expect("piped"));
    let starting = tokio::task::spawn_blocking(move || {
        let mut lines = said.lines().map_while(Result::ok);
        let ready = lines.find_map(|line| line.strip_prefix("ready http://").map(str::to_owned));
        (ready.expect("it serves"), lines)
    });
    let (address, lines) = starting.await.expect("read");
    let ports = std::fs::read_to_string(folder.path().join("ports")).expect("kept");
    let ports: toml::Table = ports.parse().expect("TOML");
    let worker_port = ports["worker_listen"].as_integer().expect("a port");
    let mut strangers = Vec::new();
    for address in [address.clone(), format!("127.0.0.1:{worker_port}")] {
        for _ in 0..200 {
            strangers.push(TcpStream::connect(&address).await.expect("connected"));
        }
    }
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("a URL");
    let mut jobs = JobExecutionServiceClient::new(endpoint.connect().await.expect("connected"));
    let token = std::fs::read_to_string(folder.path().join("admin.token")).expect("a token");
    let list = authorized(token.trim_end(), v1::ListJobsRequest::default());
    jobs.list_jobs(list).await.expect("served");
    drop(program);
    let said = tokio::task::spawn_blocking(|| lines.collect::<Vec<_>>());
    let failed: Vec<_> = said.await.expect("read");
    assert!(
        !failed.iter().any(|line| line.contains("accept fails")),
        "{failed:?}"
    );
}
