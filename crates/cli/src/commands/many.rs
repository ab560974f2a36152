//! `hodei job cancel` and `retry`: of jobs that are named, or of all that a filter finds.
//!
//! A filter shows first what it would touch. What it found is what is touched: a job that comes later is not. On a
//! terminal a person is asked; without one only `--yes` goes on.

use std::io::{IsTerminal as _, Write as _};

use anyhow::{Context as _, Result};
use futures::stream::{self, StreamExt as _};
use hodei_jobs::{v1, view};

use super::job::{AT_ONCE, filtered, page};
use super::wait::all;
use super::{Usage, connect, request_id};
use crate::args::jobs::{CancelArgs, ManyArgs, RetryArgs, StateWord};
use crate::connection::{Client, call};
use crate::environment::Environment;
use crate::exit;
use crate::output::table::preview;
use crate::output::{error, note, print, print_text};

/// How many jobs are shown before a person is asked.
const SHOWN: usize = 10;

/// Which jobs a command deals with.
enum Chosen {
    /// Those that were named.
    Named(Vec<String>),
    /// Those that a filter found, after a person agreed.
    Found(Vec<String>),
    /// None: the filter found none, or a person said no.
    Nothing(u8),
}

/// `hodei job cancel`: goes through all jobs, also after one that can not be cancelled.
///
/// # Errors
/// If the jobs can not be found out, or nobody agreed to the filter.
pub(crate) async fn cancel(args: CancelArgs, environment: &Environment) -> Result<u8> {
    let client = connect(&args.many.connect, environment).await?;
    let live = [StateWord::Queued, StateWord::Assigned, StateWord::Running];
    let (ids, named) = match choose(&client, &args.many, "cancel", &live, environment).await? {
        Chosen::Named(ids) => (ids, true),
        Chosen::Found(ids) => (ids, false),
        Chosen::Nothing(status) => return Ok(status),
    };
    let count = ids.len();
    let cancel = |id: String| {
        let client = &client;
        async move { (client.cancel(&id, "").await, id) }
    };
    let mut answers = stream::iter(ids).map(cancel).buffered(AT_ONCE);
    let mut jobs = Vec::new();
    while let Some((answer, id)) = answers.next().await {
        match answer {
            Ok(job) => {
                if named {
                    note(&outcome(&job));
                }
                jobs.push(job);
            }
            Err(refused) => error(&format!("job {id}: {refused:#}"), environment.terminal),
        }
    }
    if !named {
        note(&totals(&jobs));
    }
    let status = u8::from(jobs.len() < count);
    if let Some(format) = args.many.result.format {
        let mut jobs: Vec<_> = jobs.into_iter().map(view::Job::from).collect();
        match (count, jobs.len()) {
            (1, 1) => print(format, &jobs.remove(0))?,
            _ => print(format, &all(jobs))?,
        }
    }
    Ok(status)
}

fn outcome(job: &v1::Job) -> String {
    match (exit::is_terminal(job), view::job_state(job.state())) {
        (true, "cancelled") => format!("job {} is cancelled", job.id),
        (true, state) => format!("job {} had ended before: {state}", job.id),
        (false, _) => format!("job {} is asked to end", job.id),
    }
}

fn totals(jobs: &[v1::Job]) -> String {
    let count = |wanted: &dyn Fn(&v1::Job) -> bool| jobs.iter().filter(|job| wanted(job)).count();
    let cancelled = count(&|job| job.state() == v1::JobState::Cancelled);
    let asked = count(&|job| !exit::is_terminal(job));
    let before = jobs.len() - cancelled - asked;
    format!("{cancelled} cancelled, {asked} asked to end, {before} had ended before")
}

/// `hodei job retry`: queues the jobs anew and prints their ids, one a line.
///
/// # Errors
/// If the jobs can not be found out, or nobody agreed to the filter.
pub(crate) async fn retry(args: RetryArgs, environment: &Environment) -> Result<u8> {
    let client = connect(&args.many.connect, environment).await?;
    let failed = [StateWord::Failed, StateWord::TimedOut];
    let ids = match choose(&client, &args.many, "retry", &failed, environment).await? {
        Chosen::Named(ids) | Chosen::Found(ids) => ids,
        Chosen::Nothing(status) => return Ok(status),
    };
    let count = ids.len();
    let key = args.idempotency_key.as_ref();
    let retry = |(index, id): (usize, String)| {
        let key = key.map(|key| match count {
            1 => key.clone(),
            _ => format!("{key}.{}", index + 1),
        });
        retry_one(&client, id, request_id(key))
    };
    let mut answers = stream::iter(ids.into_iter().enumerate())
        .map(retry)
        .buffered(AT_ONCE);
    let (mut jobs, mut refused) = (Vec::new(), false);
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(job) if args.many.result.format.is_none() => print_text(&format!("{}\n", job.id))?,
            Ok(job) => jobs.push(view::Job::from(job)),
            Err(why) => {
                refused = true;
                error(&format!("{why:#}"), environment.terminal);
            }
        }
    }
    if let Some(format) = args.many.result.format {
        match (count, jobs.len()) {
            (1, 0) => {}
            (1, 1) => print(format, &jobs.remove(0))?,
            _ => print(format, &all(jobs))?,
        }
    }
    Ok(u8::from(refused))
}

async fn retry_one(client: &Client, id: String, request_id: String) -> Result<v1::Job> {
    let request = v1::RetryJobRequest {
        job_id: id.clone(),
        request_id,
    };
    let answer = call(
        &format!("retry job {id}"),
        &client.jobs,
        &request,
        |mut service, request| async move { service.retry_job(request).await },
    )
    .await?;
    answer
        .job
        .context("the server queued a job and did not say which")
}

async fn choose(
    client: &Client,
    args: &ManyArgs,
    verb: &str,
    states: &[StateWord],
    environment: &Environment,
) -> Result<Chosen> {
    if !args.jobs.is_empty() {
        let mut ids = Vec::new();
        for id in args.jobs.iter().map(ToString::to_string) {
            // Twice named is done once.
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        return Ok(Chosen::Named(ids));
    }
    let mut filter = args.filter.clone();
    if filter.state.is_empty() {
        filter.state = states.to_vec();
    }
    let mut request = filtered(filter)?;
    let (mut ids, mut shown) = (Vec::new(), Vec::new());
    loop {
        let page = page(client, &request).await?;
        for job in page.jobs {
            ids.push(job.id.clone());
            if shown.len() < SHOWN {
                shown.push(view::Job::from(job));
            }
        }
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    if ids.is_empty() {
        note(&format!("no job to {verb}"));
        return Ok(Chosen::Nothing(0));
    }
    if args.yes {
        return Ok(Chosen::Found(ids));
    }
    let mut stderr = std::io::stderr().lock();
    // A closed stderr can not be asked, which is said below.
    drop(writeln!(stderr, "{}", preview(shown, ids.len())));
    let many = if ids.len() == 1 {
        "this job".to_owned()
    } else {
        format!("these {} jobs", ids.len())
    };
    if !(environment.terminal.stderr && std::io::stdin().is_terminal()) {
        return Err(Usage(format!(
            "write --yes to {verb} {many}; nobody is here to be asked"
        ))
        .into());
    }
    drop(write!(stderr, "{verb} {many}? [y/N] "));
    drop(stderr);
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .context("can not read the answer")?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(Chosen::Found(ids)),
        _ => {
            note("nothing was done");
            Ok(Chosen::Nothing(1))
        }
    }
}
