//! `hodei job …` apart from following and from what is done to many jobs.

use anyhow::{Result, anyhow};
use futures::stream::{self, StreamExt as _};
use hodei_jobs::{v1, view};

use super::wait::all;
use super::{Usage, connect, logs, many, request_id, wait};
use crate::args::jobs::{FilterArgs, JobCommand, ListArgs, ShowArgs, SubmitArgs};
use crate::connection::{Client, call};
use crate::convert;
use crate::environment::Environment;
use crate::feed::{Begin, Fed, feed};
use crate::output::{Format, error, note, print, print_text};
use crate::signals::Interrupts;
use crate::spec;

/// The largest page that a server answers.
pub(super) const PAGE: u32 = 1_000;
/// How many jobs are on their way to the server at once.
pub(super) const AT_ONCE: usize = 16;

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
        JobCommand::Attach(args) => super::run::attach(args, environment).await,
        JobCommand::Logs(args) => logs::logs(args, environment).await,
        JobCommand::Cancel(args) => many::cancel(args, environment).await,
        JobCommand::Retry(args) => many::retry(args, environment).await,
        JobCommand::Why(args) => why(args, environment).await,
        JobCommand::Events(args) => events(args, environment).await,
    }
}

/// Prints a job, or its id alone where no format was asked for.
pub(super) fn print_new(job: v1::Job, format: Option<Format>) -> Result<u8> {
    match format {
        Some(format) => print(format, &view::Job::from(job))?,
        None => print_text(&format!("{}\n", job.id))?,
    }
    Ok(0)
}

async fn submit(args: SubmitArgs, environment: &Environment) -> Result<u8> {
    let mut specs = spec::jobs(&args.job, &spec::Base::default())?;
    if args.dry_run {
        spec::dry_run(specs, args.result.format)?;
        return Ok(0);
    }
    let client = connect(&args.connect, environment).await?;
    let key = args.job.idempotency_key;
    if args.stdin {
        for spec in &mut specs {
            spec.stdin = v1::StdinMode::Whole.into();
        }
    }
    if let [only] = specs.as_slice() {
        let request = request(only.clone(), request_id(key), environment);
        let job = client.queue(request).await?;
        if args.stdin {
            store_input(&client, &job.id).await?;
        }
        return print_new(job, args.result.format);
    }
    submit_all(&client, specs, key, args.result.format, environment).await
}

fn request(spec: v1::JobSpec, request_id: String, environment: &Environment) -> v1::QueueJobRequest {
    v1::QueueJobRequest {
        spec: Some(spec),
        request_id,
        namespace: environment.namespace.clone(),
    }
}

/// Stores the whole of this command's standard input. A job whose input is not whole would wait for ever, so it is
/// cancelled where that fails or somebody ends this command.
async fn store_input(client: &Client, job_id: &str) -> Result<()> {
    let mut signals = Interrupts::listen()?;
    let stored = tokio::select! {
        biased;
        stored = feed(client, job_id, Begin::Start, std::io::stdin()) => stored,
        signal = signals.next() => Err(anyhow!("{} came before all of the input was stored", signal.reason())),
    };
    let why = match stored {
        Ok(Fed::Whole) => return Ok(()),
        // The same request as before: its input is there. Or somebody has cancelled the job.
        Ok(Fed::Closed) => return Ok(()),
        Err(why) => why,
    };
    client.cancel(job_id, "its input could not be stored").await?;
    Err(why.context(format!("job {job_id} is cancelled")))
}

/// Queues the jobs of a file. Each is tried, and ids are printed in the file's order as they come.
async fn submit_all(
    client: &Client,
    specs: Vec<v1::JobSpec>,
    key: Option<String>,
    format: Option<Format>,
    environment: &Environment,
) -> Result<u8> {
    let count = specs.len();
    let queue = |(index, spec): (usize, v1::JobSpec)| {
        // Of one key for all, each job gets its own.
        let key = key.as_ref().map(|key| format!("{key}.{}", index + 1));
        client.queue(request(spec, request_id(key), environment))
    };
    let mut answers = stream::iter(specs.into_iter().enumerate())
        .map(queue)
        .buffered(AT_ONCE)
        .enumerate();
    let (mut jobs, mut refused) = (Vec::new(), 0);
    while let Some((index, answer)) = answers.next().await {
        match answer {
            Ok(job) if format.is_none() => print_text(&format!("{}\n", job.id))?,
            Ok(job) => jobs.push(view::Job::from(job)),
            Err(why) => {
                refused += 1;
                error(
                    &format!("job {} of {count}: {why:#}", index + 1),
                    environment.terminal,
                );
            }
        }
    }
    if let Some(format) = format {
        print(format, &all(jobs))?;
    }
    Ok(u8::from(refused > 0))
}

/// A request for the first page of the jobs that `filter` wants.
pub(super) fn filtered(filter: FilterArgs) -> Result<v1::ListJobsRequest> {
    Ok(v1::ListJobsRequest {
        labels: convert::labels(filter.label).map_err(Usage::from)?,
        states: filter
            .state
            .into_iter()
            .map(|word| convert::state(word).into())
            .collect(),
        page_size: PAGE,
        page_token: String::new(),
    })
}

/// One page of jobs.
pub(super) async fn page(client: &Client, request: &v1::ListJobsRequest) -> Result<v1::ListJobsResponse> {
    call(
        "list jobs",
        &client.jobs,
        request,
        |mut service, request| async move { service.list_jobs(request).await },
    )
    .await
}

async fn list(args: ListArgs, environment: &Environment) -> Result<u8> {
    let mut request = filtered(args.filter)?;
    request.page_token = args.page_token;
    let client = connect(&args.connect, environment).await?;
    let mut wanted = args.limit;
    let mut jobs = Vec::new();
    // A page may be shorter than asked for: large jobs fill one early.
    loop {
        request.page_size = wanted.min(PAGE);
        let page = page(&client, &request).await?;
        wanted = wanted.saturating_sub(u32::try_from(page.jobs.len()).unwrap_or(u32::MAX));
        jobs.extend(page.jobs.into_iter().map(view::Job::from));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() || wanted == 0 {
            break;
        }
    }
    let jobs = view::Jobs {
        jobs,
        next_page_token: request.page_token,
    };
    let format = args.output.format;
    print(format, &jobs)?;
    if matches!(format, Format::Table | Format::Wide | Format::Name) {
        if jobs.jobs.is_empty() {
            note("no jobs");
        }
        if !jobs.next_page_token.is_empty() {
            note(&format!("there are more: --page-token {}", jobs.next_page_token));
        }
    }
    Ok(0)
}

async fn get(args: ShowArgs, environment: &Environment) -> Result<u8> {
    let client = connect(&args.target.connect, environment).await?;
    let job = client.job(&args.target.job.to_string()).await?;
    print(args.output.format, &view::Job::from(job))?;
    Ok(0)
}

async fn why(args: ShowArgs, environment: &Environment) -> Result<u8> {
    let client = connect(&args.target.connect, environment).await?;
    let request = v1::WhyJobRequest {
        job_id: args.target.job.to_string(),
    };
    let answer = call(
        &format!("explain job {}", args.target.job),
        &client.scheduler,
        &request,
        |mut service, request| async move { service.why_job(request).await },
    )
    .await?;
    print(args.output.format, &view::Why::from(answer))?;
    Ok(0)
}

async fn events(args: ShowArgs, environment: &Environment) -> Result<u8> {
    let client = connect(&args.target.connect, environment).await?;
    let request = v1::ListJobEventsRequest {
        job_id: args.target.job.to_string(),
    };
    let answer = call(
        &format!("list the events of job {}", args.target.job),
        &client.jobs,
        &request,
        |mut service, request| async move { service.list_job_events(request).await },
    )
    .await?;
    print(args.output.format, &view::Events::from(answer))?;
    Ok(0)
}
