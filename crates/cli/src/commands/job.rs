//! `hodei job …` apart from following: one call each, and its answer printed.

use anyhow::{Context as _, Result};
use hodei_jobs::{v1, view};

use super::wait::all;
use super::{Usage, connect, logs, request_id, wait};
use crate::args::{CancelArgs, GetJobArgs, JobCommand, ListArgs, RetryArgs, SubmitArgs};
use crate::connection::call;
use crate::convert;
use crate::environment::Environment;
use crate::exit;
use crate::output::{Format, error, note, print, print_text};

/// Runs one of the `job` commands.
///
/// # Errors
/// What the server refused, or that it can not be reached.
pub(crate) async fn run(command: JobCommand, environment: &Environment) -> Result<u8> {
    match command {
        JobCommand::Submit(args) => submit(*args, environment).await,
        JobCommand::List(args) => list(args, environment).await,
        JobCommand::Get(args) => get(args, environment).await,
        JobCommand::Wait(args) => wait::wait(args, environment).await,
        JobCommand::Logs(args) => logs::logs(args, environment).await,
        JobCommand::Cancel(args) => cancel(args, environment).await,
        JobCommand::Retry(args) => retry(args, environment).await,
        JobCommand::Why(args) => why(args, environment).await,
        JobCommand::Events(args) => events(args, environment).await,
    }
}

/// Prints a job, or its id alone where no format was asked for.
fn print_new(job: v1::Job, format: Option<Format>) -> Result<u8> {
    match format {
        Some(format) => print(format, &view::Job::from(job))?,
        None => print_text(&format!("{}\n", job.id))?,
    }
    Ok(0)
}

async fn submit(args: SubmitArgs, environment: &Environment) -> Result<u8> {
    let request = v1::QueueJobRequest {
        spec: Some(convert::job_spec(&args.job, Vec::new(), None).map_err(Usage::from)?),
        request_id: request_id(args.job.idempotency_key.clone()),
        namespace: environment.namespace.clone(),
    };
    let client = connect(&args.connect, environment).await?;
    print_new(client.queue(request).await?, args.output)
}

async fn list(args: ListArgs, environment: &Environment) -> Result<u8> {
    let labels = hodei_shared::labels::Labels::new(args.label).map_err(Usage::from)?;
    let request = v1::ListJobsRequest {
        labels: labels
            .iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect(),
        states: args
            .state
            .into_iter()
            .map(|word| convert::state(word).into())
            .collect(),
        page_size: args.limit,
        page_token: args.page_token,
    };
    let client = connect(&args.connect, environment).await?;
    let page = call(
        "list jobs",
        &client.jobs,
        &request,
        |mut service, request| async move { service.list_jobs(request).await },
    )
    .await?;
    let page = view::Jobs::from(page);
    print(args.output.output, &page)?;
    if matches!(args.output.output, Format::Table | Format::Wide | Format::Name) {
        if page.jobs.is_empty() {
            note("no jobs");
        }
        if !page.next_page_token.is_empty() {
            note(&format!("there are more: --page-token {}", page.next_page_token));
        }
    }
    Ok(0)
}

async fn get(args: GetJobArgs, environment: &Environment) -> Result<u8> {
    let client = connect(&args.connect, environment).await?;
    let job = client.job(&args.job.to_string()).await?;
    print(args.output.output, &view::Job::from(job))?;
    Ok(0)
}

/// Goes through all jobs, also after one that can not be cancelled.
async fn cancel(args: CancelArgs, environment: &Environment) -> Result<u8> {
    let client = connect(&args.connect, environment).await?;
    let (mut jobs, mut status) = (Vec::new(), 0);
    for id in &args.jobs {
        match client.cancel(&id.to_string(), "").await {
            Ok(job) => {
                match (exit::is_terminal(&job), view::job_state(job.state())) {
                    (true, "cancelled") => note(&format!("job {id} is cancelled")),
                    (true, state) => note(&format!("job {id} had ended before: {state}")),
                    (false, _) => note(&format!("job {id} is asked to end")),
                }
                jobs.push(view::Job::from(job));
            }
            Err(refused) => {
                error(&format!("{refused:#}"), environment.terminal);
                status = 1;
            }
        }
    }
    if let Some(format) = args.output {
        match jobs.as_slice() {
            [job] if args.jobs.len() == 1 => print(format, job)?,
            _ => print(format, &all(jobs))?,
        }
    }
    Ok(status)
}

async fn retry(args: RetryArgs, environment: &Environment) -> Result<u8> {
    let client = connect(&args.connect, environment).await?;
    let request = v1::RetryJobRequest {
        job_id: args.job.to_string(),
        request_id: request_id(args.idempotency_key),
    };
    let answer = call(
        &format!("retry job {}", args.job),
        &client.jobs,
        &request,
        |mut service, request| async move { service.retry_job(request).await },
    )
    .await?;
    let job = answer
        .job
        .context("the server queued a job and did not say which")?;
    print_new(job, args.output)
}

async fn why(args: GetJobArgs, environment: &Environment) -> Result<u8> {
    let client = connect(&args.connect, environment).await?;
    let request = v1::WhyJobRequest {
        job_id: args.job.to_string(),
    };
    let answer = call(
        &format!("explain job {}", args.job),
        &client.scheduler,
        &request,
        |mut service, request| async move { service.why_job(request).await },
    )
    .await?;
    print(args.output.output, &view::Why::from(answer))?;
    Ok(0)
}

async fn events(args: GetJobArgs, environment: &Environment) -> Result<u8> {
    let client = connect(&args.connect, environment).await?;
    let request = v1::ListJobEventsRequest {
        job_id: args.job.to_string(),
    };
    let answer = call(
        &format!("list the events of job {}", args.job),
        &client.jobs,
        &request,
        |mut service, request| async move { service.list_job_events(request).await },
    )
    .await?;
    print(args.output.output, &view::Events::from(answer))?;
    Ok(0)
}
