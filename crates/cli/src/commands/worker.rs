//! `hodei worker list|get|drain`.

use anyhow::{Context as _, Result};
use hodei_jobs::{v1, view};

use super::connect;
use crate::args::machines::{WorkerDrainArgs, WorkerGetArgs, WorkerListArgs, WorkerVerb};
use crate::connection::call;
use crate::environment::Environment;
use crate::output::{Format, note, print};

/// Runs one of the `worker` commands.
///
/// # Errors
/// What the server refused, or that it can not be reached.
pub(crate) async fn run(command: WorkerVerb, environment: &Environment) -> Result<u8> {
    match command {
        WorkerVerb::List(args) => list(args, environment).await,
        WorkerVerb::Get(args) => get(args, environment).await,
        WorkerVerb::Drain(args) => drain(args, environment).await,
    }
}

async fn list(args: WorkerListArgs, environment: &Environment) -> Result<u8> {
    let client = connect(&args.connect, environment).await?;
    let request = v1::ListWorkersRequest { all: args.all };
    let answer = call(
        "list workers",
        &client.scheduler,
        &request,
        |mut service, request| async move { service.list_workers(request).await },
    )
    .await?;
    let workers = view::Workers::from(answer);
    print(args.output.format, &workers)?;
    if workers.workers.is_empty() && matches!(args.output.format, Format::Table | Format::Wide) {
        note("no workers; they come when jobs need them");
    }
    Ok(0)
}

async fn get(args: WorkerGetArgs, environment: &Environment) -> Result<u8> {
    let client = connect(&args.connect, environment).await?;
    let request = v1::GetWorkerRequest {
        worker_id: args.worker.to_string(),
    };
    let answer = call(
        &format!("get worker {}", args.worker),
        &client.scheduler,
        &request,
        |mut service, request| async move { service.get_worker(request).await },
    )
    .await?;
    let worker = answer
        .worker
        .context("the server answered nothing about this worker")?;
    print(args.output.format, &view::Worker::from(worker))?;
    Ok(0)
}

async fn drain(args: WorkerDrainArgs, environment: &Environment) -> Result<u8> {
    let WorkerDrainArgs { worker: args, why } = args;
    let client = connect(&args.connect, environment).await?;
    let request = v1::DrainWorkerRequest {
        worker_id: args.worker.to_string(),
        reason: why.reason,
    };
    let answer = call(
        &format!("drain worker {}", args.worker),
        &client.scheduler,
        &request,
        |mut service, request| async move { service.drain_worker(request).await },
    )
    .await?;
    let worker = answer
        .worker
        .context("the server answered nothing about this worker")?;
    print(args.output.format, &view::Worker::from(worker))?;
    Ok(0)
}
