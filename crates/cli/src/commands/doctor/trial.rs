//! The proof: a job on a server of this command's own, with everything on, and what was enforced for it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use hodei_jobs::v1;
use hodei_jobs::view;
use tokio::sync::oneshot;

use super::Check;
use crate::commands::request_id;
use crate::connection::Client;
use crate::discovery::{self, Address, Server};
use crate::environment::Environment;
use crate::follow::watch_job;
use crate::platform::{self, Flags, Mode, Ready, Stop};

/// How long the whole trial may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a worker may enforce, what it means, and what to do without it.
const ENFORCED: [(&str, &str, &str, &str); 3] = [
    (
        "pid_namespace",
        "namespaces",
        "jobs run in namespaces of their own",
        "allow this user to make user namespaces; until then jobs see each other's processes",
    ),
    (
        "cgroup_kill",
        "cgroup per job",
        "each job has its cgroup, and is killed whole",
        "delegate a cgroup to this user (a systemd service with Delegate=yes); until then memory and cpu are not limited",
    ),
    (
        "data_folder_hidden",
        "data folder",
        "jobs can not see the server's data",
        "allow mount namespaces; until then run jobs of others as another user",
    ),
];

/// Runs the trial.
pub(super) async fn run(environment: &Environment) -> Vec<Check> {
    let folder = std::env::temp_dir().join(format!("hodei-doctor-{}", request_id(None)));
    let began = Instant::now();
    let tried = tokio::time::timeout(PATIENCE, attempt(&folder, environment)).await;
    // It may never have been made.
    drop(std::fs::remove_dir_all(&folder));
    let enforced = match tried {
        Ok(Ok(enforced)) => enforced,
        Ok(Err(error)) => return vec![failed(format!("{error:#}"))],
        Err(_) => return vec![failed(format!("it did not end within {} s", PATIENCE.as_secs()))],
    };
    let mut checks = vec![Check::ok(
        "trial job",
        format!("ran and ended in {} ms", began.elapsed().as_millis()),
    )];
    checks.extend(ENFORCED.iter().map(|(word, name, found, advice)| {
        match enforced.iter().any(|enforced| enforced == word) {
            true => Check::ok(name, *found),
            false => Check::warning(name, format!("{word} is not enforced"), *advice),
        }
    }));
    checks
}

fn failed(found: String) -> Check {
    Check::missing(
        "trial job",
        found,
        "HODEI_LOG=info hodei run --local -- true shows more",
    )
}

/// What was enforced for the job.
async fn attempt(folder: &std::path::Path, environment: &Environment) -> Result<Vec<String>> {
    let flags = Flags {
        data_dir: Some(folder.to_owned()),
        ..Flags::default()
    };
    let stop = Stop::default();
    let (tell, ready) = oneshot::channel();
    let settings = platform::settings(Mode::Local, &flags)?;
    let server = platform::serve(settings, |ready| drop(tell.send(ready)), stop.clone());
    let job = async {
        let ready = ready.await.context("the server did not start")?;
        job(ready, environment).await
    };
    tokio::pin!(server, job);
    let enforced = tokio::select! {
        biased;
        ended = &mut server => {
            ended?;
            anyhow::bail!("the server ended by itself");
        }
        enforced = &mut job => enforced,
    };
    stop.end.cancel();
    server.await?;
    enforced
}

async fn job(ready: Ready, environment: &Environment) -> Result<Vec<String>> {
    let server = Server {
        address: Address::Socket(ready.socket),
        token: discovery::read_token(ready.admin_token_file)?,
    };
    let client = Client::connect(&server, environment.uid).await?;
    let spec = v1::JobSpec {
        name: "doctor".to_owned(),
        command: vec!["/bin/sh".to_owned(), "-c".to_owned(), "exit 0".to_owned()],
        cpu_millis: 10,
        memory_bytes: 1 << 20,
        ..Default::default()
    };
    let request = v1::QueueJobRequest {
        spec: Some(spec),
        request_id: request_id(None),
        namespace: String::new(),
    };
    let job = client.queue(request).await?;
    let job = watch_job(&client, &job.id, PATIENCE, None).await?;
    if job.state() != v1::JobState::Succeeded {
        anyhow::bail!("it {}: {}", view::job_state(job.state()), job.message);
    }
    let workers = client
        .scheduler
        .clone()
        .list_workers(v1::ListWorkersRequest { all: true })
        .await;
    let workers = workers
        .context("the workers can not be listed")?
        .into_inner()
        .workers;
    Ok(workers.into_iter().flat_map(|worker| worker.enforced).collect())
}
