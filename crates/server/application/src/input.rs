//! Use cases over input: clients send it in parts, workers pull it, so that every attempt reads the same bytes.

use std::time::Duration;

use hodei_server_domain::access::{Permission, Principal};
use hodei_server_domain::job::state::{HELD, JobEvent, Phase};
use hodei_shared::Invalid;
use hodei_shared::ids::{AttemptKey, JobId};
use hodei_shared::resources::format_bytes;

use crate::jobs::{changed, visible};
use crate::platform::Platform;
use crate::ports::input::{InputAppend, InputOutcome, InputPage, InputRead};
use crate::ports::jobs::JobChange;
use crate::ports::link::WorkerIdentity;
use crate::refused::Refused;
use crate::session::revoke;

/// How many bytes one part may have.
pub const MAX_PART_BYTES: usize = 1 << 20;
/// How much a worker gets at once.
const PAGE_BYTES: usize = 256 << 10;
/// How long a worker waits for bytes before it hears that there are none yet.
const PULL: Duration = Duration::from_secs(10);

/// A part of a job's input, from a client.
#[derive(Debug, Clone)]
pub struct Part {
    /// Bytes before `data`.
    pub offset: u64,
    /// The bytes; at most [`MAX_PART_BYTES`].
    pub data: Vec<u8>,
    /// Nothing follows them.
    pub eof: bool,
}

/// How much of an input is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// Position after the last byte.
    pub end: u64,
    /// The end is stored.
    pub complete: bool,
}

/// Stores a part of a job's input. With the last one a job that was held for it becomes claimable.
///
/// # Errors
/// [`Refused::WrongState`] if the job takes no input or none any more; [`Refused::Invalid`] if a part or the whole
/// is too large.
pub async fn send(
    platform: &Platform,
    principal: &Principal,
    job: JobId,
    part: Part,
) -> Result<Sent, Refused> {
    let record = visible(platform, principal, Permission::SubmitJobs, job).await?;
    if part.data.len() > MAX_PART_BYTES {
        let size = format_bytes(part.data.len() as u64);
        return Err(Invalid::new("data", size, "is larger than 1MiB; send it in parts").into());
    }
    let limit = platform.settings.input_limit;
    let append = InputAppend {
        job,
        offset: part.offset,
        data: part.data,
        eof: part.eof,
        limit,
    };
    let wrong_state = |message: String| Err(Refused::WrongState(message));
    match platform.input.append_input(vec![append]).await?.pop() {
        Some(InputOutcome::Stored { end, complete }) => {
            if complete && record.job.phase == (Phase::Queued { ready_at_ms: HELD }) {
                release(platform, job).await?;
            }
            Ok(Sent { end, complete })
        }
        Some(InputOutcome::AfterEnd) => wrong_state(format!("the input of job {job} has ended already")),
        Some(InputOutcome::NotFed) => {
            wrong_state(format!("job {job} takes no input; submit it with --stdin"))
        }
        Some(InputOutcome::JobEnded) => wrong_state(format!("job {job} has ended; it takes no more input")),
        Some(InputOutcome::TooLarge) => {
            let rule = format!(
                "is more input than a job may have, which is {}",
                format_bytes(limit)
            );
            Err(Invalid::new("stdin", format!("job {job}"), rule).into())
        }
        Some(InputOutcome::NoSuchJob) => Err(Refused::NotFound {
            kind: "job",
            id: job.to_string(),
        }),
        None => Err(Refused::Internal("the store gave no outcome".to_owned())),
    }
}

async fn release(platform: &Platform, job: JobId) -> Result<(), Refused> {
    let change = JobChange {
        job,
        event: JobEvent::InputComplete,
        from_worker: None,
        finish: None,
    };
    platform.jobs.apply(vec![change]).await?;
    platform.wake.dispatch.notify_one();
    Ok(())
}

/// What a worker gets of an attempt's input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pulled {
    /// The next bytes; empty if none came in time.
    More(Vec<u8>),
    /// The last bytes.
    Last(Vec<u8>),
    /// The attempt is over.
    Stale,
}

/// The next bytes of an attempt's input; waits a while for some. Cancel-safe.
///
/// # Errors
/// [`Refused::Denied`] for an attempt that never was this worker's: the worker is revoked.
pub async fn pull(
    platform: &Platform,
    identity: &WorkerIdentity,
    key: AttemptKey,
    offset: u64,
) -> Result<Pulled, Refused> {
    let worker = identity.worker;
    let mut hints = platform.events.changes_of(key.job);
    let until = platform.clock.monotonic() + PULL;
    loop {
        let read = InputRead {
            key,
            worker,
            offset,
            max_bytes: PAGE_BYTES,
        };
        match platform.input.read_input(read).await? {
            InputPage::Data { data, last: true } => return Ok(Pulled::Last(data)),
            InputPage::Data { data, .. } if !data.is_empty() => return Ok(Pulled::More(data)),
            InputPage::Data { .. } => {}
            InputPage::Stale => return Ok(Pulled::Stale),
            InputPage::NotHolder => {
                let message = "it asked for input of an attempt that never was its own".to_owned();
                revoke(platform, worker, message.clone()).await;
                return Err(Refused::Denied(message));
            }
        }
        if platform.clock.monotonic() >= until || !changed(platform, &mut hints).await {
            return Ok(Pulled::More(Vec::new()));
        }
    }
}
