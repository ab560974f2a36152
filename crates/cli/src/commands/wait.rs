//! `hodei job wait`: waits until jobs have ended. Leaving it does not cancel them.

use anyhow::Result;
use futures::future::join_all;
use hodei_jobs::v1;
use hodei_jobs::view::{Job, Jobs};

use super::connect;
use super::run::PATIENCE;
use crate::args::WaitArgs;
use crate::environment::Environment;
use crate::exit;
use crate::follow::watch_job;
use crate::output::{note, print};

/// The exit status of one job is that of `run`; of several it is 0 if all succeeded, else 1.
///
/// # Errors
/// If a job does not exist, or the server stays away.
pub(crate) async fn wait(args: WaitArgs, environment: &Environment) -> Result<u8> {
    let client = connect(&args.connect, environment).await?;
    let ids: Vec<String> = args.jobs.iter().map(ToString::to_string).collect();
    let ended = join_all(ids.iter().map(|id| watch_job(&client, id, PATIENCE, None))).await;
    let ended: Vec<v1::Job> = ended.into_iter().collect::<Result<_>>()?;
    for line in ended.iter().filter_map(exit::explanation) {
        note(&line);
    }
    let status = match ended.as_slice() {
        [job] => exit::status(job),
        jobs => u8::from(jobs.iter().any(|job| exit::status(job) != 0)),
    };
    if let Some(format) = args.output {
        let mut jobs: Vec<Job> = ended.into_iter().map(Job::from).collect();
        match jobs.len() {
            1 => print(format, &jobs.remove(0))?,
            _ => print(format, &all(jobs))?,
        }
    }
    Ok(status)
}

/// Jobs as a list without a next page.
pub(crate) const fn all(jobs: Vec<Job>) -> Jobs {
    Jobs {
        jobs,
        next_page_token: String::new(),
    }
}
