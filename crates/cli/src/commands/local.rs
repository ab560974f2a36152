//! `hodei run --local`: a server of its own that lives as long as the command, with everything on.
//!
//! The job runs in the caller's folder with the caller's PATH and LANG. The server removes what it made when it
//! is told to end, and this command waits for that, whatever signals come; another one meanwhile leaves the job no
//! more time to end by itself.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use hodei_jobs::v1;
use tokio::sync::oneshot;

use super::request_id;
use super::run::{Execution, stdin_mode};
use crate::args::run::RunArgs;
use crate::connection::Client;
use crate::discovery::{self, Address, Server};
use crate::environment::Environment;
use crate::feed::Begin;
use crate::output::note;
use crate::output::sink::Sink;
use crate::platform::{self, Flags, Mode, Ready, Stop};
use crate::signals::Interrupts;
use crate::spec;

/// How long the server may take to end.
const SHUTDOWN: Duration = Duration::from_secs(30);

/// Runs the job on a server of its own; the exit status is the job's.
///
/// # Errors
/// If the server can not start or the job can not be queued or followed.
pub(crate) async fn run(args: RunArgs, environment: &Environment) -> Result<u8> {
    let folder = std::env::current_dir().context("can not tell which folder this is")?;
    let base = spec::Base {
        env: environment.for_local_job(args.inherit_env),
        folder: Some(&folder),
    };
    let mut spec = spec::one(&args.job, &base)?;
    spec.stdin = stdin_mode(args.stdin).into();
    if args.dry_run {
        spec::dry_run(vec![spec], args.format)?;
        return Ok(0);
    }
    let request = v1::QueueJobRequest {
        spec: Some(spec),
        request_id: request_id(args.job.idempotency_key.clone()),
        namespace: String::new(),
    };
    if environment.log {
        platform::init_logging()?;
    }
    let mut signals = Interrupts::listen()?;
    let settings = platform::settings(
        Mode::Local,
        &Flags {
            config: args.config.clone(),
            ..Flags::default()
        },
    )?;
    let stop = Stop::default();
    let (tell, ready) = oneshot::channel();
    let server = platform::serve(
        settings,
        move |ready| {
            // The receiver is only gone when the command is ending anyway.
            drop(tell.send(ready));
        },
        stop.clone(),
    );
    let sink = Sink::of_process(environment.terminal, args.raw);
    let job = async {
        let started = tokio::select! {
            biased;
            ready = ready => Ok(ready.context("the server of this command did not start")?),
            signal = signals.next() => Err(signal),
        };
        match started {
            Ok(ready) => {
                let input = args.stdin.then_some(Begin::Start);
                execute(ready, request, input, sink, signals, environment).await
            }
            Err(signal) => Ok(Ended {
                status: signal.status(),
                signals,
                left: false,
            }),
        }
    };
    tokio::pin!(server, job);
    let ended = tokio::select! {
        biased;
        ended = &mut server => {
            let cause = ended.err().unwrap_or_else(|| anyhow!("it ended by itself"));
            return Err(cause.context("the server of this command failed"));
        }
        ended = &mut job => ended,
    };
    stop.end.cancel();
    let mut server = pin!(tokio::time::timeout(SHUTDOWN, &mut server));
    let Ended {
        status,
        mut signals,
        left,
    } = match ended {
        Ok(ended) => ended,
        Err(error) => {
            tidied(server.await);
            return Err(error);
        }
    };
    if left {
        stop.hurry.cancel();
    }
    loop {
        tokio::select! {
            biased;
            ended = &mut server => {
                tidied(ended);
                return Ok(status);
            }
            _ = signals.next() => stop.hurry.cancel(),
        }
    }
}

/// How the job's part of this command ended.
struct Ended {
    status: u8,
    signals: Interrupts,
    /// Whether a person did not want to wait for the job's end.
    left: bool,
}

fn tidied(ended: Result<Result<()>, tokio::time::error::Elapsed>) {
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => note(&format!("the server of this command did not end well: {error:#}")),
        Err(_) => note("the server of this command did not end in time; the next run removes what it left"),
    }
}

async fn execute(
    ready: Ready,
    request: v1::QueueJobRequest,
    input: Option<Begin>,
    sink: Sink,
    signals: Interrupts,
    environment: &Environment,
) -> Result<Ended> {
    let server = Server {
        address: Address::Socket(ready.socket),
        token: discovery::read_token(ready.admin_token_file)?,
    };
    let mut execution = Execution {
        client: Client::connect(&server, environment.uid).await?,
        signals,
        asked: None,
        survives: false,
        left: false,
        refused: Arc::default(),
        input,
    };
    let status = execution.run(request, sink).await?;
    Ok(Ended {
        status,
        left: execution.left,
        signals: execution.signals,
    })
}
