//! `hodei job wait`: waits until jobs have ended. Leaving it does not cancel them.

use std::io::Write as _;
use std::time::Duration;

use anyhow::Result;
use futures::stream::{self, StreamExt as _};
use hodei_jobs::view::{Job, Jobs};
use hodei_jobs::{v1, view};

use super::job::{filtered, page};
use super::run::PATIENCE;
use super::{Usage, connect};
use crate::args::jobs::{FilterArgs, WaitArgs};
use crate::connection::Client;
use crate::environment::Environment;
use crate::exit;
use crate::follow::watch_job;
use crate::output::{note, print, print_text};

/// How many jobs are watched at once. Of all jobs the order does not matter, so the others wait for their turn.
const WATCHED: usize = 64;
/// How many jobs `--any` watches: each must be, at once.
const MOST_OF_ANY: usize = 64;

/// The exit status of one job is that of `run`; of several it is 0 if all succeeded, else 1.
///
/// # Errors
/// If a job does not exist, or the server stays away.
pub(crate) async fn wait(args: WaitArgs, environment: &Environment) -> Result<u8> {
    let client = connect(&args.connect, environment).await?;
    let ids = match args.jobs.is_empty() {
        true => labelled(&client, args.label.clone()).await?,
        false => args.jobs.iter().map(ToString::to_string).collect(),
    };
    if ids.is_empty() {
        note("no job has this label");
        return Ok(0);
    }
    if args.any && ids.len() > MOST_OF_ANY {
        let most = format!(
            "--any waits for at most {MOST_OF_ANY} jobs, and these are {}",
            ids.len()
        );
        return Err(Usage(most).into());
    }
    let mut progress = Progress::new(ids.len(), environment.terminal.stderr);
    let mut ended: Vec<Option<v1::Job>> = vec![None; ids.len()];
    let waiting = until_ended(&client, &ids, args.any, &mut ended, &mut progress);
    let in_time = match args.timeout {
        None => waiting.await.map(|()| true),
        Some(ms) => match tokio::time::timeout(Duration::from_millis(ms), waiting).await {
            Ok(waited) => waited.map(|()| true),
            Err(_too_long) => Ok(false),
        },
    };
    progress.finish();
    let in_time = in_time?;
    let ended: Vec<v1::Job> = ended.into_iter().flatten().collect();
    for line in ended.iter().filter_map(exit::explanation) {
        note(&line);
    }
    if !in_time {
        note(&format!(
            "{} of {} jobs have not ended in time",
            ids.len() - ended.len(),
            ids.len()
        ));
    }
    let status = match ended.as_slice() {
        _ if !in_time => exit::TIMED_OUT,
        [job] => exit::status(job),
        jobs => u8::from(jobs.iter().any(|job| exit::status(job) != 0)),
    };
    let mut jobs: Vec<Job> = ended.into_iter().map(Job::from).collect();
    match (args.result.format, args.any) {
        (Some(format), _) if ids.len() == 1 && jobs.len() == 1 => print(format, &jobs.remove(0))?,
        (Some(format), _) => print(format, &all(jobs))?,
        (None, true) => jobs
            .first()
            .map_or(Ok(()), |job| print_text(&format!("{}\n", job.id)))?,
        (None, false) => {}
    }
    Ok(status)
}

async fn until_ended(
    client: &Client,
    ids: &[String],
    any: bool,
    ended: &mut [Option<v1::Job>],
    progress: &mut Progress,
) -> Result<()> {
    progress.show();
    let watch = |(index, id): (usize, &String)| {
        let id = id.clone();
        async move {
            watch_job(client, &id, PATIENCE, None)
                .await
                .map(|job| (index, job))
        }
    };
    let mut ends = stream::iter(ids.iter().enumerate())
        .map(watch)
        .buffer_unordered(WATCHED);
    while let Some(end) = ends.next().await {
        let (index, job) = end?;
        progress.ended(&job);
        ended[index] = Some(job);
        if any {
            break;
        }
    }
    Ok(())
}

async fn labelled(client: &Client, label: Vec<(String, String)>) -> Result<Vec<String>> {
    let mut request = filtered(FilterArgs {
        state: Vec::new(),
        label,
    })?;
    let mut ids = Vec::new();
    loop {
        let page = page(client, &request).await?;
        ids.extend(page.jobs.into_iter().map(|job| job.id));
        if page.next_page_token.is_empty() {
            return Ok(ids);
        }
        request.page_token = page.next_page_token;
    }
}

/// What is said on stderr meanwhile: one line that changes on a terminal, a line for each end elsewhere, and
/// nothing at all about a single job.
struct Progress {
    all: usize,
    succeeded: usize,
    others: usize,
    terminal: bool,
}

impl Progress {
    const fn new(all: usize, terminal: bool) -> Self {
        Self {
            all,
            succeeded: 0,
            others: 0,
            terminal,
        }
    }

    fn ended(&mut self, job: &v1::Job) {
        match job.state() {
            v1::JobState::Succeeded => self.succeeded += 1,
            _ => self.others += 1,
        }
        // What did not succeed is explained at the end.
        if !self.terminal && self.all > 1 {
            note(&format!(
                "job {} {}",
                job.id,
                view::job_state(job.state()).replace('_', " ")
            ));
        }
        self.show();
    }

    fn line(&self) -> String {
        let ended = self.succeeded + self.others;
        let mut line = format!("waiting: {ended} of {} ended", self.all);
        if self.others > 0 {
            line += &format!(", {} did not succeed", self.others);
        }
        line
    }

    fn show(&self) {
        if self.terminal && self.all > 1 {
            let mut stderr = std::io::stderr().lock();
            // A closed stderr is nobody's problem.
            drop(write!(stderr, "\r\x1b[K{}", self.line()));
            drop(stderr.flush());
        }
    }

    fn finish(&self) {
        if self.terminal && self.all > 1 {
            drop(write!(std::io::stderr().lock(), "\r\x1b[K"));
        }
    }
}

/// Jobs as a list without a next page.
pub(crate) const fn all(jobs: Vec<Job>) -> Jobs {
    Jobs {
        jobs,
        next_page_token: String::new(),
    }
}
