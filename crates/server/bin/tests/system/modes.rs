use std::os::unix::fs::PermissionsExt as _;

use hodei_server_bin::settings::Mode;

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
    std::fs::remove_file(data.join("admin.token")).expect("removed");
    let server = Server::start(Mode::Dev, &data).await.expect("started");
    assert!(!data.join("admin.token").exists(), "the store has a token");
    server.stop().await.expect("ended well");
}
