//! What a job is started with, and what is said of one that can not be started.

use std::os::unix::fs::PermissionsExt as _;

use hodei_jobs::v1::{JobSpec, JobState};

use crate::client::{assert_end, command, sh};
use crate::platform::Platform;

const ODD: [&str; 10] = [
    "a b",
    "",
    "'\"$HOME`id`",
    "new\nline",
    "é\u{1f600}",
    "-x",
    "--",
    "\\",
    "*",
    "\t\r\u{1b}[0m",
];

#[tokio::test(flavor = "multi_thread")]
async fn arguments_and_environment_are_passed_on_unchanged() {
    let platform = Platform::start().await;
    let client = platform.client().await;
    let want: String = ODD.iter().map(|word| format!("{word}\0")).collect();
    let job = client
        .queue(command(["printf", "%s\\0"].into_iter().chain(ODD)))
        .await;
    assert_end(
        &client.ended(&job).await,
        (JobState::Succeeded, Some(0), None, "exit_code"),
    );
    assert_eq!(client.output(&job, 1).await.text(), want);

    let env = ODD
        .iter()
        .enumerate()
        .map(|(n, value)| (format!("ODD_{n}"), (*value).to_owned()))
        .collect();
    let job = client
        .queue(JobSpec {
            env,
            ..command(["env", "-0"])
        })
        .await;
    client.ended(&job).await;
    let output = client.output(&job, 1).await;
    for (n, value) in ODD.iter().enumerate() {
        assert!(
            output
                .text()
                .split('\0')
                .any(|line| line == format!("ODD_{n}={value}")),
            "{value:?}"
        );
    }
    let script = JobSpec {
        script: "#!/bin/false\nprintf '%s' \"it's a \\$script\"\n".to_owned(),
        ..command::<&str>([])
    };
    let job = client.queue(script).await;
    client.ended(&job).await;
    assert_eq!(client.output(&job, 1).await.text(), "it's a $script");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_started_is_named() {
    let platform = Platform::start().await;
    let client = platform.client().await;
    let file = |name: &str, text: &str, mode: u32| {
        let path = platform.path(name);
        std::fs::write(&path, text).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("set");
        path.display().to_string()
    };
    let no_interpreter = file("no_interpreter", "#!/no/such/interpreter\n", 0o755);
    let plain = file("plain", "#!/bin/sh\n", 0o644);
    let no_program = file("no_program", "neither\n", 0o755);
    let folder = platform.path("folder").display().to_string();
    std::fs::create_dir(&folder).expect("made");
    let missing_folder = platform.path("missing folder").display().to_string();
    let in_folder = |workdir: &str| JobSpec {
        workdir: workdir.to_owned(),
        ..sh("true")
    };
    let cases = [
        (
            command(["no-such-program-xyz", "arg"]),
            Some(127),
            "no-such-program-xyz",
        ),
        (command(["/no/such/program"]), Some(127), "/no/such/program"),
        (command(["./relative"]), Some(127), "./relative"),
        (command([&no_interpreter]), Some(126), "/no/such/interpreter"),
        (command([&plain]), Some(126), plain.as_str()),
        (command([&no_program]), Some(126), no_program.as_str()),
        (command([&folder]), Some(126), folder.as_str()),
        (in_folder(&missing_folder), None, missing_folder.as_str()),
        (in_folder(&plain), None, plain.as_str()),
    ];
    for (spec, exit_code, named) in cases {
        let job = client.ended(&client.queue(spec).await).await;
        assert_end(&job, (JobState::Failed, exit_code, None, "start_failed"));
        assert!(job.message.contains(named), "{named} is not in: {}", job.message);
        assert_eq!(job.attempts.len(), 1);
        assert_eq!(client.output(&job.id, 1).await.both, b"");
    }
}
