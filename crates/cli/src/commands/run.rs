//! `hodei run`: queues a job, follows it and ends as it does.
//!
//! The first Ctrl-C or SIGTERM cancels the job and waits for its end, the second leaves; SIGHUP leaves at once.
//! A result that the job reached by itself wins over a cancel that came too late.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use hodei_jobs::v1;
use tokio::sync::Notify;

use super::job::print_new;
use super::{Usage, connect, local, request_id};
use crate::args::run::RunArgs;
use crate::connection::Client;
use crate::environment::Environment;
use crate::errors::{ReaderGone, explain, is_worth_another_try};
use crate::exit;
use crate::follow::{Attempts, Follow, last_attempt};
use crate::output::note;
use crate::output::sink::Sink;
use crate::seek::Start;
use crate::signals::{Interrupt, Interrupts};
use crate::spec;
use crate::waiting::Hopeless;

/// How long `run` and `logs -f` outlast the absence of the server.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the command; the exit status is the job's.
///
/// # Errors
/// If the job can not be queued or followed.
pub(crate) async fn run(args: RunArgs, environment: &Environment) -> Result<u8> {
    if args.tty {
        return Err(Usage("-t: there is no terminal in this release".to_owned()).into());
    }
    if args.local {
        return local::run(args, environment).await;
    }
    let spec = spec::one(&args.job, &spec::Base::default())?;
    if args.dry_run {
        spec::dry_run(vec![spec], args.format)?;
        return Ok(0);
    }
    let request = v1::QueueJobRequest {
        spec: Some(spec),
        request_id: request_id(args.job.idempotency_key.clone()),
        namespace: environment.namespace.clone(),
    };
    let client = connect(&args.connect, environment).await?;
    if args.detach {
        let job = client.queue(request).await?;
        return print_new(job, args.format);
    }
    let mut execution = Execution {
        client,
        signals: Interrupts::listen()?,
        asked: None,
        survives: true,
        left: false,
        refused: Arc::default(),
    };
    let sink = Sink::of_process(environment.terminal, args.raw);
    execution.run(request, sink).await
}

/// A job from the moment it is queued until this command ends.
pub(crate) struct Execution {
    /// Where it runs.
    pub(crate) client: Client,
    /// What people and supervisors say meanwhile.
    pub(crate) signals: Interrupts,
    /// The signal that asked to cancel the job.
    pub(crate) asked: Option<Interrupt>,
    /// Whether the job goes on when this command leaves.
    pub(crate) survives: bool,
    /// A person did not want to wait for the job's end.
    pub(crate) left: bool,
    /// The server has refused to cancel, for good.
    pub(crate) refused: Arc<Notify>,
}

/// How long to wait before a server that stayed away is asked to cancel once more.
const CANCEL_PAUSE: Duration = Duration::from_secs(1);

/// How often a server of this command's own is asked to cancel before the command ends without its answer.
const LOCAL_CANCEL_TRIES: u32 = 5;

impl Execution {
    /// Queues `request` and follows the job.
    ///
    /// # Errors
    /// If the job can not be queued or followed.
    pub(crate) async fn run(&mut self, request: v1::QueueJobRequest, sink: Sink) -> Result<u8> {
        let job = match self.queue(request).await? {
            ControlFlow::Continue(job) => job,
            ControlFlow::Break(status) => return Ok(status),
        };
        let hopeless = match self.survives {
            true => Hopeless::Wait,
            false => Hopeless::End,
        };
        let following = tokio::spawn(follow(self.client.clone(), job.clone(), sink, hopeless));
        let Some(ended) = self.wait(&job.id, following).await? else {
            return Ok(self.asked.map_or(exit::HUNG_UP, Interrupt::status));
        };
        match ended {
            Ok(job) => {
                if let Some(line) = exit::explanation(&job) {
                    note(&line);
                }
                Ok(match self.asked {
                    Some(signal) if job.state() == v1::JobState::Cancelled => signal.status(),
                    _ => exit::status(&job),
                })
            }
            // A command that nobody reads ends; so does this one.
            Err(error) if error.is::<ReaderGone>() => {
                self.client.cancel(&job.id, "nobody reads its output").await?;
                Ok(exit::READER_GONE)
            }
            Err(error) => Err(error),
        }
    }

    /// The queued job, or the status of a command that leaves before the server's answer.
    async fn queue(&mut self, request: v1::QueueJobRequest) -> Result<ControlFlow<u8, v1::Job>> {
        let client = self.client.clone();
        let queued = client.queue(request);
        tokio::pin!(queued);
        loop {
            tokio::select! {
                biased;
                job = &mut queued => {
                    let job = job?;
                    if let Some(signal) = self.asked {
                        self.cancel(&job.id, signal);
                    }
                    return Ok(ControlFlow::Continue(job));
                }
                signal = self.signals.next() => {
                    if signal == Interrupt::HangUp || self.asked.is_some() {
                        note("left before the server answered; `hodei job list` shows whether the job is queued");
                        return Ok(ControlFlow::Break(self.asked.unwrap_or(signal).status()));
                    }
                    self.asked = Some(signal);
                }
            }
        }
    }

    /// The job's end, or `None` if this command leaves before it.
    async fn wait(
        &mut self,
        job_id: &str,
        mut following: tokio::task::JoinHandle<Result<v1::Job>>,
    ) -> Result<Option<Result<v1::Job>>> {
        loop {
            tokio::select! {
                biased;
                ended = &mut following => return ended.context("following the job broke off").map(Some),
                // Of a server of its own this command is the end, also where that can not write down a cancel.
                () = self.refused.notified(), if !self.survives => {
                    following.abort();
                    self.say_what_is_left(job_id, Interrupt::HangUp);
                    return Ok(None);
                }
                signal = self.signals.next() => {
                    if signal == Interrupt::HangUp || self.asked.is_some() {
                        following.abort();
                        self.left = true;
                        self.say_what_is_left(job_id, signal);
                        return Ok(None);
                    }
                    self.asked = Some(signal);
                    note(&format!("cancelling job {job_id}; once more to leave at once"));
                    self.cancel(job_id, signal);
                }
            }
        }
    }

    fn say_what_is_left(&self, job_id: &str, signal: Interrupt) {
        match (self.survives, self.asked) {
            (false, _) => note(&format!("left; job {job_id} ends with its server")),
            (true, Some(_)) => note(&format!(
                "left; job {job_id} is asked to end: `hodei job get {job_id}` shows whether it has"
            )),
            (true, None) => note(&format!(
                "left on {}; job {job_id} goes on: `hodei job logs -f {job_id}` follows it",
                signal.reason()
            )),
        }
    }

    /// Asks to cancel in the background, again while the server is away and this command runs: the end of the job
    /// comes over the watch.
    fn cancel(&self, job_id: &str, signal: Interrupt) {
        let (jobs, request) = (
            self.client.jobs.clone(),
            v1::CancelJobRequest {
                job_id: job_id.to_owned(),
                reason: signal.reason().to_owned(),
            },
        );
        let refused = Arc::clone(&self.refused);
        let mut tries_left = if self.survives {
            u32::MAX
        } else {
            LOCAL_CANCEL_TRIES
        };
        tokio::spawn(async move {
            while let Err(status) = jobs.clone().cancel_job(request.clone()).await {
                tries_left -= 1;
                if !is_worth_another_try(&status) || tries_left == 0 {
                    let what = format!("cancel job {}", request.job_id);
                    note(&format!("{:#}", explain(&what, &status)));
                    return refused.notify_one();
                }
                tokio::time::sleep(CANCEL_PAUSE).await;
            }
        });
    }
}

async fn follow(client: Client, job: v1::Job, mut sink: Sink, hopeless: Hopeless) -> Result<v1::Job> {
    let follow = Follow {
        client: &client,
        job_id: &job.id,
        attempts: Attempts::From(last_attempt(&job).unwrap_or(1)),
        patience: PATIENCE,
        begin: (Start::First, 0),
        only: None,
        hopeless,
    };
    let ended = follow.run(&mut sink).await?;
    ended.with_context(|| format!("lost sight of job {}", job.id))
}
