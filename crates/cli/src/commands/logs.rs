//! `hodei job logs`: prints what a job printed, stdout on stdout and stderr on stderr.

use anyhow::{Result, bail};
use hodei_jobs::v1;

use super::connect;
use super::run::PATIENCE;
use crate::args::jobs::{AttemptChoice, LogsArgs};
use crate::convert;
use crate::environment::Environment;
use crate::follow::{Attempts, Follow, ended, last_attempt, print_once};
use crate::output::note;
use crate::output::sink::Sink;
use crate::seek::{Output, Start};
use crate::values::Since;
use crate::waiting::Hopeless;

/// Prints the output; with `--follow` until the job has ended.
///
/// # Errors
/// If there is no such job or attempt, or the server stays away.
pub(crate) async fn logs(args: LogsArgs, environment: &Environment) -> Result<u8> {
    let client = connect(&args.target.connect, environment).await?;
    let only = args.stream.map(convert::stream);
    let sink = Sink::of_process(environment.terminal, args.raw);
    let mut sink = sink.only(only).with_timestamps(args.timestamps);
    let start = start(&args);
    let job = client.job(&args.target.job.to_string()).await?;
    let last = last_attempt(&job);
    if args.follow {
        let follow = Follow {
            client: &client,
            job_id: &job.id,
            attempts: match args.attempt {
                None => Attempts::Last,
                Some(AttemptChoice::All) => Attempts::From(1),
                Some(AttemptChoice::Number(number)) => Attempts::Only(number),
            },
            patience: PATIENCE,
            begin: (start, last.unwrap_or(0)),
            only,
            hopeless: Hopeless::Wait,
        };
        follow.run(&mut sink).await?;
        return Ok(0);
    }
    let wanted: Vec<&v1::Attempt> = match args.attempt {
        Some(AttemptChoice::All) => job.attempts.iter().collect(),
        Some(AttemptChoice::Number(number)) => vec![attempt(&job, number)?],
        None => job
            .attempts
            .iter()
            .filter(|attempt| Some(attempt.number) == last)
            .collect(),
    };
    if wanted.is_empty() {
        note(&format!(
            "job {} has not started; `hodei job why {}` says why",
            job.id, job.id
        ));
    }
    for (index, attempt) in wanted.iter().enumerate() {
        if let Some(before) = index.checked_sub(1).map(|before| wanted[before]) {
            note(&format!("{}; attempt {} follows", ended(before), attempt.number));
        }
        let output = Output {
            client: &client,
            job: &job,
            attempt: attempt.number,
            only,
        };
        print_once(output, start, PATIENCE, &mut sink).await?;
    }
    Ok(0)
}

fn start(args: &LogsArgs) -> Start {
    match (args.tail, args.since) {
        (Some(lines), _) => Start::LastLines(lines),
        (None, Some(Since::At(at_ms))) => Start::Since(at_ms),
        (None, Some(Since::Ago(ms))) => {
            let now = jiff::Timestamp::now().as_millisecond();
            Start::Since(now.saturating_sub_unsigned(ms))
        }
        (None, None) => Start::First,
    }
}

fn attempt(job: &v1::Job, number: u32) -> Result<&v1::Attempt> {
    match job.attempts.iter().find(|attempt| attempt.number == number) {
        Some(attempt) => Ok(attempt),
        None => bail!(
            "job {} has no attempt {number}; it has had {}",
            job.id,
            job.attempts.len()
        ),
    }
}
