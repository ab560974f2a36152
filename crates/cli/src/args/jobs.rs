//! `hodei job …`.

use clap::{Args, Subcommand, ValueEnum};
use clap_complete::engine::ArgValueCompleter;
use hodei_shared::ids::JobId;

use super::spec::JobArgs;
use super::{ConnectArgs, JobTarget, OutputArgs, ResultArgs};
use crate::complete;
use crate::values;

#[derive(Debug, Subcommand)]
pub(crate) enum JobCommand {
    /// Queue jobs and print their ids
    Submit(Box<SubmitArgs>),
    /// List jobs, newest first
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Show a job
    #[command(after_help = "\
Examples:
  hodei job get ID
  hodei job get ID -o json | jq .state")]
    Get(ShowArgs),
    /// Wait until jobs have ended; with one job, end with its exit code
    Wait(WaitArgs),
    /// Follow a job as `hodei run` does: its output, its exit code, Ctrl-C
    Attach(AttachArgs),
    /// Print a job's output
    Logs(LogsArgs),
    /// Cancel jobs
    Cancel(CancelArgs),
    /// Queue new jobs with the specs of ended ones and print their ids
    Retry(RetryArgs),
    /// Say what a job waits for, or where it went
    #[command(after_help = "\
Examples:
  hodei job why ID                 every provider, and what ruled it out")]
    Why(ShowArgs),
    /// List what happened to a job, oldest first
    #[command(after_help = "\
Examples:
  hodei job events ID
  hodei job events ID -o wide      with exact times and positions")]
    Events(ShowArgs),
}

#[derive(Debug, Args)]
#[command(
    override_usage = "hodei job submit [OPTIONS] [--] CMD [ARG]...\n       hodei job submit [OPTIONS] -f FILE",
    after_help = "\
Examples:
  id=$(hodei job submit --name nightly --label team=a -- ./nightly.sh)
  hodei job submit --timeout 10m --retries 3 --retry-on lost,oom -- ./simulate
  hodei job submit --stdin -- sort < names.txt     the job starts once all of it is stored
  hodei job submit -f jobs.yaml                    one id a line, in the file's order
  hodei job submit --dry-run --cpus 2 -- ./work    print the file for this job

A file:
  name: nightly
  command: [./nightly.sh, --full]      # or script: with a text, and interpreter: [bash, -e]
  env: {MODE: \"fast\"}
  resources: {cpus: 2, memory: 4GiB}
  timeout: 10m
  retry: {max: 3, on: [lost, oom]}
  labels: {team: a}
  # image, workdir, constraints, provider, isolation, priority, lost_after, grace, merge
  # a line of --- begins the next job"
)]
pub(crate) struct SubmitArgs {
    /// Check the jobs, print them as a file for -f, and queue nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Store this command's standard input whole, for every attempt of the job; default: it reads /dev/null
    #[arg(long, conflicts_with_all = ["dry_run", "file"])]
    pub(crate) stdin: bool,
    #[command(flatten)]
    pub(crate) result: ResultArgs,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
    #[command(flatten)]
    pub(crate) job: JobArgs,
}

/// Which jobs.
#[derive(Debug, Clone, Args)]
pub(crate) struct FilterArgs {
    /// Only jobs in one of these states
    #[arg(long, value_delimiter = ',')]
    pub(crate) state: Vec<StateWord>,
    /// Only jobs with this label; repeatable: all of them
    #[arg(long, value_name = "KEY=VALUE", value_parser = values::label)]
    pub(crate) label: Vec<(String, String)>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  hodei job list --state queued,running
  hodei job list --label team=a --limit 5000 -o json")]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    /// How many, 1 to 100000
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) limit: u32,
    /// Go on where the page that printed this token ended
    #[arg(long, value_name = "TOKEN", default_value = "", hide_default_value = true)]
    pub(crate) page_token: String,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

/// States of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum StateWord {
    Queued,
    Assigned,
    Running,
    Succeeded,
    Failed,
    Cancelled,
    TimedOut,
}

/// One job and how it is printed.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    pub(crate) target: JobTarget,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
#[command(
    override_usage = "hodei job wait [OPTIONS] ID...\n       hodei job wait [OPTIONS] --label KEY=VALUE",
    after_help = "\
Examples:
  hodei job wait ID                        end as `hodei run` would
  hodei job wait ID ID ID                  until all have ended
  hodei job wait --label batch=7 --timeout 1h
  hodei job wait --any ID ID               until the first has ended; it is printed

Exit status: of one job, that of `hodei run`; of several, 0 if all that it waited for succeeded, else 1;
124 if --timeout came first. Leaving does not cancel the jobs."
)]
pub(crate) struct WaitArgs {
    /// The jobs
    #[arg(value_name = "ID", required_unless_present = "label", conflicts_with = "label",
          value_parser = values::id::<JobId>, add = ArgValueCompleter::new(complete::jobs))]
    pub(crate) jobs: Vec<JobId>,
    /// The jobs that have this label now; repeatable: all of them
    #[arg(long, value_name = "KEY=VALUE", value_parser = values::label)]
    pub(crate) label: Vec<(String, String)>,
    /// How long to wait, such as 30s or 2h [default: no limit]
    #[arg(long, value_name = "DURATION", value_parser = values::timeout, allow_hyphen_values = true)]
    pub(crate) timeout: Option<u64>,
    /// Wait for the first that ends, and print its id
    #[arg(long)]
    pub(crate) any: bool,
    #[command(flatten)]
    pub(crate) result: ResultArgs,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

/// Which attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AttemptChoice {
    All,
    Number(u32),
}

/// One of a job's outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StreamWord {
    Stdout,
    Stderr,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  hodei job logs ID                what the last attempt printed
  hodei job logs -f ID             follow it, and the attempts after it
  hodei job logs --tail 20 -f ID   from the last 20 lines on
  hodei job logs --attempt all ID  what every attempt printed
  hodei job logs --since 10m --timestamps --stream stderr ID

What the job printed on stdout is on stdout, what it printed on stderr is on stderr. Times are those of the
worker that ran the job. Order between the two streams is the order in which they were read.")]
pub(crate) struct LogsArgs {
    #[command(flatten)]
    pub(crate) target: JobTarget,
    /// Go on until the job has ended
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Show this attempt, or `all` [default: the last one]
    #[arg(long, value_name = "N", value_parser = values::attempt)]
    pub(crate) attempt: Option<AttemptChoice>,
    /// Only this stream
    #[arg(long)]
    pub(crate) stream: Option<StreamWord>,
    /// Begin with the last N lines of the attempt
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(0..=1_000_000), conflicts_with = "since")]
    pub(crate) tail: Option<u64>,
    /// Only what was printed in the last DURATION, such as 10m, or since a TIME such as 2026-01-31T08:00:00Z
    #[arg(long, value_name = "DURATION|TIME", value_parser = values::since)]
    pub(crate) since: Option<values::Since>,
    /// Put the time in front of each line
    #[arg(long)]
    pub(crate) timestamps: bool,
    /// Pass control characters on to the terminal
    #[arg(long)]
    pub(crate) raw: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  hodei job attach ID              print its last attempt's output, go on to its end, end with its exit code
  hodei job attach --tail 10 ID    from its last 10 lines on
  hodei job attach -i ID           and pass standard input on, if it was submitted with -i

The first Ctrl-C cancels the job and waits for its end, the second leaves; `hodei job logs -f` only looks.
Exit status: that of `hodei run`.")]
pub(crate) struct AttachArgs {
    #[command(flatten)]
    pub(crate) target: JobTarget,
    /// Pass this command's standard input on to the job, after what was sent before
    #[arg(short = 'i', long = "stdin")]
    pub(crate) stdin: bool,
    /// Begin with the last N lines
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    pub(crate) tail: Option<u64>,
    /// Pass control characters on to the terminal
    #[arg(long)]
    pub(crate) raw: bool,
}

/// Jobs by their ids or by a filter.
#[derive(Debug, Clone, Args)]
pub(crate) struct ManyArgs {
    /// The jobs
    #[arg(value_name = "ID", required_unless_present_any = ["state", "label", "all"],
          conflicts_with_all = ["state", "label", "all"],
          value_parser = values::id::<JobId>, add = ArgValueCompleter::new(complete::jobs))]
    pub(crate) jobs: Vec<JobId>,
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    /// All jobs that this can be done to
    #[arg(long)]
    pub(crate) all: bool,
    /// With a filter: do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) result: ResultArgs,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

#[derive(Debug, Args)]
#[command(
    override_usage = "hodei job cancel [OPTIONS] ID...\n       hodei job cancel [OPTIONS] --state STATE|--label KEY=VALUE|--all",
    after_help = "\
Examples:
  hodei job cancel ID ID
  hodei job cancel --label team=a          shows what it would cancel, and asks
  hodei job cancel --state queued --yes    without asking, as in a script
  hodei job cancel --all

A filter takes queued, assigned and running jobs."
)]
pub(crate) struct CancelArgs {
    #[command(flatten)]
    pub(crate) many: ManyArgs,
}

#[derive(Debug, Args)]
#[command(
    override_usage = "hodei job retry [OPTIONS] ID...\n       hodei job retry [OPTIONS] --state STATE|--label KEY=VALUE|--all",
    after_help = "\
Examples:
  id=$(hodei job retry ID)
  hodei job retry --label batch=7          shows what it would queue anew, and asks
  hodei job retry --state cancelled --yes

A filter takes failed and timed out jobs, unless --state says otherwise."
)]
pub(crate) struct RetryArgs {
    /// Retry once for this key
    #[arg(long, value_name = "KEY", value_parser = values::request_id, conflicts_with_all = ["state", "label", "all"])]
    pub(crate) idempotency_key: Option<String>,
    #[command(flatten)]
    pub(crate) many: ManyArgs,
}
