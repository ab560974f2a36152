//! `hodei job logs`: prints what a job printed, stdout on stdout and stderr on stderr.

use anyhow::Result;

use super::connect;
use super::run::PATIENCE;
use crate::args::LogsArgs;
use crate::environment::Environment;
use crate::follow::{Attempts, Follow, last_attempt, print_once};
use crate::output::note;
use crate::output::sink::Sink;

/// Prints the output; with `--follow` until the job has ended.
///
/// # Errors
/// If there is no such job or attempt, or the server stays away.
pub(crate) async fn logs(args: LogsArgs, environment: &Environment) -> Result<u8> {
    let client = connect(&args.connect, environment).await?;
    let mut sink = Sink::of_process(environment.terminal, args.raw);
    let job_id = args.job.to_string();
    if args.follow {
        let follow = Follow {
            client: &client,
            job_id: &job_id,
            attempts: args.attempt.map_or(Attempts::Last, Attempts::Only),
            patience: PATIENCE,
            hint: environment.terminal.stderr,
        };
        follow.run(&mut sink).await?;
        return Ok(0);
    }
    let job = client.job(&job_id).await?;
    match args.attempt.or(last_attempt(&job)) {
        Some(number) => print_once(&client, &job_id, number, PATIENCE, &mut sink).await?,
        None => note(&format!(
            "job {job_id} has not started; `hodei job why {job_id}` says why"
        )),
    }
    Ok(0)
}
