//! Sends this command's standard input to a job, in parts that are stored one after the other.
//!
//! A part is sent again until it is stored, so nothing is lost while the server is away. At most three parts are in
//! memory: what has been read and is not stored yet slows down whoever writes.

use std::io::{self, Read};
use std::time::Duration;

use anyhow::{Context as _, Result};
use hodei_jobs::v1;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::{Code, Request, Status};

use crate::connection::Client;
use crate::errors::{explain, is_worth_another_try};

/// The most bytes of one part.
const PART: usize = 256 << 10;
/// How long one part may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the server may be away.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(200);

/// How sending ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fed {
    /// All of the input is stored, and its end.
    Whole,
    /// The job takes no more: it has ended, or somebody else has ended its input.
    Closed,
}

/// Where in a job's input this command begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begin {
    /// At its first byte.
    Start,
    /// After what others have sent.
    Rest,
}

/// Sends what `source` gives, to its end. The thread that reads it ends with the process: a read can not be
/// cancelled.
///
/// # Errors
/// If `source` can not be read, or the server refuses a part or stays away.
pub(crate) async fn feed(
    client: &Client,
    job_id: &str,
    begin: Begin,
    source: impl Read + Send + 'static,
) -> Result<Fed> {
    let (read, mut parts) = mpsc::channel(1);
    std::thread::Builder::new()
        .name("stdin".to_owned())
        .spawn(move || read_parts(source, &read))
        .context("can not start a thread that reads stdin")?;
    let mut offset = match begin {
        Begin::Start => 0,
        Begin::Rest => match send(client, part(job_id, 0, Vec::new(), false)).await? {
            Some(answer) if !answer.complete => answer.end,
            _ => return Ok(Fed::Closed),
        },
    };
    while let Some(bytes) = parts.recv().await {
        let bytes = bytes.context("can not read stdin")?;
        let (length, eof) = (bytes.len() as u64, bytes.is_empty());
        match send(client, part(job_id, offset, bytes, eof)).await? {
            Some(_) if eof => return Ok(Fed::Whole),
            Some(_) => offset += length,
            None => return Ok(Fed::Closed),
        }
    }
    Ok(Fed::Closed)
}

/// Hands over what is read, part by part; last an empty one, which is the end.
fn read_parts(mut source: impl Read, parts: &mpsc::Sender<io::Result<Vec<u8>>>) {
    loop {
        let mut part = vec![0; PART];
        let read = loop {
            match source.read(&mut part) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        let part = read.map(|length| {
            part.truncate(length);
            part
        });
        let last = part.as_ref().map_or(true, Vec::is_empty);
        if parts.blocking_send(part).is_err() || last {
            return;
        }
    }
}

fn part(job_id: &str, offset: u64, data: Vec<u8>, eof: bool) -> v1::SendInputRequest {
    v1::SendInputRequest {
        job_id: job_id.to_owned(),
        offset,
        data,
        eof,
    }
}

/// Sends one part until it is stored; `None` if the job takes no more.
async fn send(client: &Client, part: v1::SendInputRequest) -> Result<Option<v1::SendInputResponse>> {
    let give_up = Instant::now() + PATIENCE;
    loop {
        let mut request = Request::new(part.clone());
        request.set_timeout(CALL_TIMEOUT);
        match client.jobs.clone().send_input(request).await {
            Ok(answer) => return Ok(Some(answer.into_inner())),
            Err(status) if status.code() == Code::FailedPrecondition => return closed(&status),
            Err(status) if is_worth_another_try(&status) && Instant::now() < give_up => {
                tokio::time::sleep(PAUSE).await;
            }
            Err(status) => return Err(explain(&format!("send input to job {}", part.job_id), &status)),
        }
    }
}

/// A job that has ended takes no more, and that is how it should be; one that never took any is a mistake.
fn closed(status: &Status) -> Result<Option<v1::SendInputResponse>> {
    if status.message().contains("takes no input") {
        return Err(explain("send input", status));
    }
    Ok(None)
}
