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
use crate::args::jobs::AttachArgs;
use crate::args::run::RunArgs;
use crate::connection::Client;
use crate::environment::Environment;
use crate::errors::{ReaderGone, explain, is_worth_another_try};
use crate::exit;
use crate::feed::{Begin, feed};
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
    let mut spec = spec::one(&args.job, &spec::Base::default())?;
    spec.stdin = stdin_mode(args.stdin).into();
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
        input: args.stdin.then_some(Begin::Start),
    };
    let sink = Sink::of_process(environment.terminal, args.raw);
    execution.run(request, sink).await
}

/// The wire's word for whether this command's standard input goes to the job.
pub(crate) const fn stdin_mode(stdin: bool) -> v1::StdinMode {
    match stdin {
        true => v1::StdinMode::Stream,
        false => v1::StdinMode::Unspecified,
    }
}

/// Follows a job that is there as if this command had queued it.
///
/// # Errors
/// If there is no such job, or it can not be followed.
pub(crate) async fn attach(args: AttachArgs, environment: &Environment) -> Result<u8> {
    let client = connect(&args.target.connect, environment).await?;
    let job = client.job(&args.target.job.to_string()).await?;
    let takes_input = job
        .spec
        .as_ref()
        .is_some_and(|spec| spec.stdin() != v1::StdinMode::Unspecified);
    if args.stdin && !takes_input {
        let text = format!("-i: job {} takes no input; it was queued without it", job.id);
        return Err(Usage(text).into());
    }
    let mut execution = Execution {
        client,
        signals: Interrupts::listen()?,
        asked: None,
        survives: true,
        left: false,
        refused: Arc::default(),
        input: args.stdin.then_some(Begin::Rest),
    };
    let sink = Sink::of_process(environment.terminal, args.raw);
    let start = args.tail.map_or(Start::First, Start::LastLines);
    execution.follow(job, start, sink).await
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
    /// From where on this command's standard input goes to the job; `None`: it does not.
    pub(crate) input: Option<Begin>,
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
        self.follow(job, Start::First, sink).await
    }

    /// Follows a job to its end; of the attempt that there is, its output from `start` on.
    ///
    /// # Errors
    /// If the job can not be followed.
    pub(crate) async fn follow(&mut self, job: v1::Job, start: Start, sink: Sink) -> Result<u8> {
        if let Some(begin) = self.input {
            tokio::spawn(feed_job(self.client.clone(), job.id.clone(), begin));
        }
        let hopeless = match self.survives {
            true => Hopeless::Wait,
            false => Hopeless::End,
        };
        let following = tokio::spawn(follow(self.client.clone(), job.clone(), start, sink, hopeless));
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

/// Passes on this command's standard input. What goes wrong is said, and the job goes on.
async fn feed_job(client: Client, job_id: String, begin: Begin) {
    if let Err(error) = feed(&client, &job_id, begin, std::io::stdin()).await {
        note(&format!("{error:#}; the job gets no more input"));
    }
}

async fn follow(
    client: Client,
    job: v1::Job,
    start: Start,
    mut sink: Sink,
    hopeless: Hopeless,
) -> Result<v1::Job> {
    let number = last_attempt(&job).unwrap_or(1);
    let follow = Follow {
        client: &client,
        job_id: &job.id,
        attempts: Attempts::From(number),
        patience: PATIENCE,
        begin: (start, number),
        only: None,
        hopeless,
    };
    let ended = follow.run(&mut sink).await?;
    ended.with_context(|| format!("lost sight of job {}", job.id))
}
