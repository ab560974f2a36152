//! `hodei queue status`.

use anyhow::Result;
use hodei_jobs::{v1, view};

use super::connect;
use crate::args::machines::{QueueCommand, QueueStatusArgs};
use crate::connection::call;
use crate::environment::Environment;
use crate::output::print;

/// Runs one of the `queue` commands.
///
/// # Errors
/// What the server refused, or that it can not be reached.
pub(crate) async fn run(command: QueueCommand, environment: &Environment) -> Result<u8> {
    let QueueCommand::Status(QueueStatusArgs { output, connect: to }) = command;
    let client = connect(&to, environment).await?;
    let answer = call(
        "ask for the queue's status",
        &client.scheduler,
        &v1::GetQueueStatusRequest {},
        |mut service, request| async move { service.get_queue_status(request).await },
    )
    .await?;
    print(output.format, &view::QueueStatus::from(answer))?;
    Ok(0)
}
