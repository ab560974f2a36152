//! One server to a data folder. Who gets in at its doors is walked in the tests of the server's own program.

use hodei_jobs::v1::JobState;

use crate::client::{assert_end, sh};
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
