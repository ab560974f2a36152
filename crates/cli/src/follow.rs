//! Follows a job to its end: its state and its output at once, over absences of the server.
//!
//! Output is resumed by position, so no byte is lost or doubled whatever breaks. All output of an attempt is
//! written before its end counts. A reader that does not read only slows itself down.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use hodei_jobs::{v1, view};
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Status;

use crate::connection::Client;
use crate::errors::{explain, is_transient};
use crate::exit::is_terminal;
use crate::output::sink::Sink;
use crate::output::{note, written};
use crate::seek;
use crate::waiting::{self, Hopeless};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Which attempts are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attempts {
    /// This one and all after it.
    From(u32),
    /// The last one there is at the start, and all after it.
    Last,
    /// This one only.
    Only(u32),
}

/// A job to follow.
pub(crate) struct Follow<'a> {
    /// Where.
    pub(crate) client: &'a Client,
    /// Which.
    pub(crate) job_id: &'a str,
    /// What of it.
    pub(crate) attempts: Attempts,
    /// How long the server may be away.
    pub(crate) patience: Duration,
    /// Where to begin in the attempts up to a number; later ones are printed whole.
    pub(crate) begin: (seek::Start, u32),
    /// The only stream that is of interest to `begin`.
    pub(crate) only: Option<v1::Stream>,
    /// What to do about a job that nothing can hold.
    pub(crate) hopeless: Hopeless,
}

impl Follow<'_> {
    /// Prints until the job has ended and all of its output is written; the ended job, or `None` if only one
    /// attempt was asked for and has ended before its job.
    ///
    /// # Errors
    /// `ReaderGone` if nobody reads the output; what the server refused; or that it stayed away for too long.
    pub(crate) async fn run(&self, sink: &mut Sink) -> Result<Option<v1::Job>> {
        let (seen, look) = watch::channel(None);
        let telling = waiting::tell(self.client, self.job_id, self.hopeless, look.clone());
        let watching = async {
            let watching = watch_job(self.client, self.job_id, self.patience, Some(seen));
            tokio::pin!(watching, telling);
            tokio::select! {
                biased;
                job = &mut watching => job,
                told = &mut telling => match told {
                    Ok(()) => watching.await,
                    Err(error) => Err(error),
                },
            }
        };
        let printing = self.print(look, sink);
        tokio::pin!(watching, printing);
        if let Attempts::Only(_) = self.attempts {
            return tokio::select! {
                biased;
                printed = &mut printing => printed.map(|()| None),
                job = &mut watching => {
                    let job = job?;
                    printing.await?;
                    Ok(Some(job))
                }
            };
        }
        let (job, ()) = tokio::try_join!(watching, printing)?;
        Ok(Some(job))
    }

    async fn print(&self, mut look: watch::Receiver<Option<v1::Job>>, sink: &mut Sink) -> Result<()> {
        let mut number = match self.attempts {
            Attempts::From(number) | Attempts::Only(number) => number,
            Attempts::Last => last_attempt(&self.seen(&mut look, |_| true).await?).unwrap_or(1),
        };
        let mut printed = None;
        let there = |job: &v1::Job, from: u32| job.attempts.iter().map(|a| a.number).find(|n| *n >= from);
        loop {
            let job = self
                .seen(&mut look, |job| there(job, number).is_some() || is_terminal(job))
                .await?;
            let Some(next) = there(&job, number) else {
                break;
            };
            number = next;
            if let Some(before) = job
                .attempts
                .iter()
                .find(|attempt| Some(attempt.number) == printed)
            {
                note(&format!("{}; attempt {number} follows", ended(before)));
            }
            self.print_attempt(&job, number, sink).await?;
            if let Attempts::Only(_) = self.attempts {
                break;
            }
            printed = Some(number);
            number += 1;
        }
        written(sink.finish())
    }

    async fn seen(
        &self,
        look: &mut watch::Receiver<Option<v1::Job>>,
        is_wanted: impl Fn(&v1::Job) -> bool,
    ) -> Result<v1::Job> {
        let seen = look.wait_for(|job| job.as_ref().is_some_and(&is_wanted)).await;
        let job = seen.ok().and_then(|job| job.clone());
        job.with_context(|| format!("lost sight of job {}", self.job_id))
    }

    async fn print_attempt(&self, job: &v1::Job, number: u32, sink: &mut Sink) -> Result<()> {
        let mut outage = Outage::new(self.job_id, self.patience, false);
        let output = seek::Output {
            client: self.client,
            job,
            attempt: number,
            only: self.only,
        };
        let position = match self.begin {
            (start, last) if number <= last => output.position(start).await?,
            _ => 0,
        };
        let mut reader = Reader::new(self.job_id, number, position);
        loop {
            match reader.read(self.client, true, sink, &mut outage).await? {
                Read::End(end) if end.attempt_ended => {
                    if !end.complete {
                        note(&format!("some output of attempt {number} is missing"));
                    }
                    return Ok(());
                }
                Read::End(_) => outage.pause(None).await?,
                Read::Interrupted(status) => outage.pause(status).await?,
            }
        }
    }
}

/// Prints what one attempt has printed from `start` until now.
///
/// # Errors
/// As [`Follow::run`].
pub(crate) async fn print_once(
    output: seek::Output<'_>,
    start: seek::Start,
    patience: Duration,
    sink: &mut Sink,
) -> Result<()> {
    let number = output.attempt;
    let mut outage = Outage::new(&output.job.id, patience, true);
    let mut reader = Reader::new(&output.job.id, number, output.position(start).await?);
    loop {
        match reader.read(output.client, false, sink, &mut outage).await? {
            Read::End(end) => {
                if end.attempt_ended && !end.complete {
                    note(&format!("some output of attempt {number} is missing"));
                }
                return written(sink.finish());
            }
            Read::Interrupted(status) => outage.pause(status).await?,
        }
    }
}

/// Watches a job until it has ended, publishing each state that it is seen in.
///
/// # Errors
/// What the server refused, or that it stayed away for longer than `patience`.
pub(crate) async fn watch_job(
    client: &Client,
    job_id: &str,
    patience: Duration,
    seen: Option<watch::Sender<Option<v1::Job>>>,
) -> Result<v1::Job> {
    let mut outage = Outage::new(job_id, patience, true);
    loop {
        let request = v1::WatchJobRequest {
            job_id: job_id.to_owned(),
        };
        let interrupted = match client.jobs.clone().watch_job(request).await {
            Err(status) => Some(status),
            Ok(response) => {
                let mut states = response.into_inner();
                loop {
                    match states.message().await {
                        Ok(Some(message)) => {
                            outage.over();
                            let Some(job) = message.job else { continue };
                            if let Some(seen) = &seen {
                                seen.send_replace(Some(job.clone()));
                            }
                            if is_terminal(&job) {
                                return Ok(job);
                            }
                        }
                        Ok(None) => break None,
                        Err(status) => break Some(status),
                    }
                }
            }
        };
        outage.pause(interrupted).await?;
    }
}

/// Reads one attempt's output, from where the last read ended.
struct Reader {
    request: v1::ReadOutputRequest,
}

enum Read {
    End(v1::OutputEnd),
    Interrupted(Option<Status>),
}

impl Reader {
    fn new(job_id: &str, attempt: u32, position: u64) -> Self {
        Self {
            request: v1::ReadOutputRequest {
                job_id: job_id.to_owned(),
                attempt,
                position,
                follow: false,
            },
        }
    }

    async fn read(
        &mut self,
        client: &Client,
        follow: bool,
        sink: &mut Sink,
        outage: &mut Outage,
    ) -> Result<Read> {
        self.request.follow = follow;
        let mut events = match client.logs.clone().read_output(self.request.clone()).await {
            Ok(response) => response.into_inner(),
            Err(status) => return Ok(Read::Interrupted(Some(status))),
        };
        loop {
            let message = match events.message().await {
                Ok(Some(message)) => message,
                Ok(None) => return Ok(Read::Interrupted(None)),
                Err(status) => return Ok(Read::Interrupted(Some(status))),
            };
            outage.over();
            match message.event {
                Some(v1::read_output_response::Event::Piece(piece)) => {
                    outage.restart();
                    self.write(&piece, sink)?;
                }
                Some(v1::read_output_response::Event::End(end)) => return Ok(Read::End(end)),
                Some(v1::read_output_response::Event::Started(_)) | None => {}
            }
        }
    }

    /// Writes what of `piece` was not written before.
    fn write(&mut self, piece: &v1::OutputPiece, sink: &mut Sink) -> Result<()> {
        let position = &mut self.request.position;
        if piece.start > *position {
            note(&format!(
                "{} bytes of output are missing",
                piece.start - *position
            ));
            *position = piece.start;
        }
        let mut at = piece.start;
        let mut rest = &piece.data[..];
        for run in &piece.runs {
            let length = usize::try_from(run.length).unwrap_or(usize::MAX).min(rest.len());
            let (bytes, after) = rest.split_at(length);
            rest = after;
            let known = usize::try_from(position.saturating_sub(at))
                .unwrap_or(usize::MAX)
                .min(length);
            at += length as u64;
            if known < length {
                written(blocking(|| sink.write(run.stream(), run.at_ms, &bytes[known..])))?;
                *position = at;
            }
        }
        Ok(())
    }
}

/// Runs a write that may block for as long as the reader likes, without holding up other tasks.
fn blocking<T>(write: impl FnOnce() -> T) -> T {
    match tokio::runtime::Handle::current().runtime_flavor() {
        tokio::runtime::RuntimeFlavor::MultiThread => tokio::task::block_in_place(write),
        _ => write(),
    }
}

/// A time in which the server was not there.
struct Outage {
    job_id: String,
    patience: Duration,
    loud: bool,
    since: Option<Instant>,
    said: bool,
    pause: Duration,
}

impl Outage {
    fn new(job_id: &str, patience: Duration, loud: bool) -> Self {
        Self {
            job_id: job_id.to_owned(),
            patience,
            loud,
            since: None,
            said: false,
            pause: FIRST_PAUSE,
        }
    }

    /// The server is there.
    fn over(&mut self) {
        self.since = None;
        if std::mem::take(&mut self.said) {
            note("the server is back");
        }
    }

    /// The server is there and useful: the next pause is a short one.
    const fn restart(&mut self) {
        self.pause = FIRST_PAUSE;
    }

    /// Waits before the next try.
    ///
    /// # Errors
    /// What the server refused for good, or that its absence was too long.
    async fn pause(&mut self, status: Option<Status>) -> Result<()> {
        if let Some(status) = status.as_ref().filter(|status| !is_transient(status)) {
            return Err(explain(&format!("follow job {}", self.job_id), status));
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        if since.elapsed() >= self.patience {
            return Err(anyhow!(
                "the server has been away for {} s; the job may go on, and `hodei job logs -f {}` follows it again",
                self.patience.as_secs(),
                self.job_id
            ));
        }
        if self.loud && status.is_some() && !std::mem::replace(&mut self.said, true) {
            let patience = self.patience.as_secs();
            note(&format!("the server is away; trying again for {patience} s"));
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }
}

/// The number of the last attempt.
pub(crate) fn last_attempt(job: &v1::Job) -> Option<u32> {
    job.attempts.iter().map(|attempt| attempt.number).max()
}

/// How an attempt ended, for people.
pub(crate) fn ended(attempt: &v1::Attempt) -> String {
    let state = view::attempt_state(attempt.state());
    let why = match (&attempt.exit_code, &attempt.signal, attempt.reason.as_str()) {
        (Some(code), None, "exit_code") => format!(" with exit code {code}"),
        (_, Some(signal), "signal") => format!(" by signal {signal}"),
        (_, _, "") => String::new(),
        (_, _, reason) if reason == state => String::new(),
        (_, _, reason) => format!(" ({reason})"),
    };
    format!("attempt {} {}{why}", attempt.number, state.replace('_', " "))
}

#[cfg(test)]
#[path = "follow_tests.rs"]
mod tests;
