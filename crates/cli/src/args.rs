//! What can be typed: commands, flags and their help. Values are checked here, before anything is contacted.
//!
//! Only what has a meaning in this release exists; a flag that would be ignored is an error instead.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use hodei_shared::ids::{JobId, ProviderId, WorkerId};

use crate::output::Format;
use crate::values;

/// Run jobs on workers that come and go by themselves.
#[derive(Debug, Parser)]
#[command(name = "hodei", version, arg_required_else_help = true, after_help = EXAMPLES, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  hodei run --local -- make test              run here and now, without a server
  hodei dev                                   start a whole platform here
  hodei run -- echo hello                     queue there, follow, end as it does
  hodei job submit --retries 3 -- ./train.sh  queue it and print its id
  hodei job logs -f ID                        follow its output
  hodei job why ID                            ask what it waits for

Environment:
  HODEI_SERVER, HODEI_TOKEN, HODEI_CA_FILE    the server, the token, whom to trust
  HODEI_NAMESPACE                             where jobs are queued
  HODEI_DATA_DIR, HODEI_CONFIG, HODEI_LOG     folder, file and logging of a server";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Queue a command, follow its output and end with its exit code
    Run(Box<RunArgs>),
    /// Start a whole platform on this machine: embedded store, process provider
    Dev(ServeArgs),
    /// Start a server
    Server(ServerArgs),
    /// List and show workers; with --folder, be one (providers start that, people do not)
    Worker(WorkerCommand),
    /// Submit, list, follow and cancel jobs
    #[command(subcommand)]
    Job(JobCommand),
    /// See where jobs can run
    #[command(subcommand)]
    Provider(ProviderCommand),
    /// Measure: run many real jobs through the whole path and print how long each part took
    Bench(Box<BenchArgs>),
}

/// How a client command finds its server.
#[derive(Debug, Clone, Args)]
pub(crate) struct ConnectArgs {
    /// Server to use [env: HODEI_SERVER]; default: the `hodei dev` of the data folder
    #[arg(long, value_name = "URL")]
    pub(crate) server: Option<String>,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct OutputArgs {
    /// How to print
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub(crate) output: Format,
}

const RUN_EXAMPLES: &str = "\
Examples:
  hodei run -- python train.py --epochs 3
  hodei run --local -- make test
  hodei run --cpus 4 --memory 8GiB --timeout 1h --retries 2 -- ./simulate
  id=$(hodei run --detach -- ./simulate)

Exit status:
  the command's own    it ran
  128+N                signal N ended it
  124                  it timed out
  125                  Hodei failed, the worker was lost, or the command line is wrong
  126, 127             the program can not be executed, or does not exist
  130                  it was cancelled
  143                  SIGTERM came, and cancelled it

The first Ctrl-C cancels the job and waits for its end, the second leaves.";

#[derive(Debug, Args)]
#[command(after_help = RUN_EXAMPLES, override_usage = "hodei run [OPTIONS] [--] CMD [ARG]...")]
pub(crate) struct RunArgs {
    /// Run on a server of its own that ends with the command, in this folder and with this PATH
    #[arg(long, conflicts_with_all = ["server", "detach"])]
    pub(crate) local: bool,
    /// With --local: pass on the whole environment, except HODEI_*
    #[arg(long, requires = "local")]
    pub(crate) inherit_env: bool,
    /// With --local: configuration whose providers are used [env: HODEI_CONFIG]
    #[arg(long, value_name = "FILE", requires = "local")]
    pub(crate) config: Option<PathBuf>,
    /// Print the job's id once it is queued, and leave
    #[arg(long)]
    pub(crate) detach: bool,
    /// With --detach: how to print the job; default: its id alone
    #[arg(short, long, value_name = "FORMAT", requires = "detach")]
    pub(crate) output: Option<Format>,
    /// Pass control characters on to the terminal
    #[arg(long)]
    pub(crate) raw: bool,
    #[arg(short = 't', long = "tty", hide = true)]
    pub(crate) tty: bool,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
    #[command(flatten)]
    pub(crate) job: JobArgs,
}

/// What describes a job.
#[derive(Debug, Clone, Args)]
pub(crate) struct JobArgs {
    /// What to call the job
    #[arg(long, value_parser = values::name)]
    pub(crate) name: Option<String>,
    /// Image to run in, on a provider that has images
    #[arg(long, value_parser = values::image)]
    pub(crate) image: Option<String>,
    /// Variable of the job's environment; repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = values::env)]
    pub(crate) env: Vec<(String, String)>,
    /// Folder to run in; default: a private, empty one
    #[arg(long, value_name = "FOLDER", value_parser = values::workdir)]
    pub(crate) workdir: Option<String>,
    /// Processors, such as 2 or 0.5 [default: 1]
    #[arg(long, value_name = "N", value_parser = values::cpus, allow_hyphen_values = true)]
    pub(crate) cpus: Option<u64>,
    /// Memory, such as 512MiB or 2GiB [default: 512MiB, not enforced]
    #[arg(long, value_name = "SIZE", value_parser = values::memory, allow_hyphen_values = true)]
    pub(crate) memory: Option<u64>,
    /// How long an attempt may run, such as 30s or 2h [default: no limit]
    #[arg(long, value_name = "DURATION", value_parser = values::timeout, allow_hyphen_values = true)]
    pub(crate) timeout: Option<u64>,
    /// How often to repeat an attempt that failed
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true,
          value_parser = values::retries, allow_hyphen_values = true)]
    pub(crate) retries: u32,
    /// Which ends to repeat [default: all four]
    #[arg(long, value_name = "END", value_delimiter = ',')]
    pub(crate) retry_on: Vec<RetryOn>,
    /// Label of the job; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = values::label)]
    pub(crate) label: Vec<(String, String)>,
    /// Condition on a provider's labels, such as 'zone in (a,b)'; repeatable
    #[arg(long, value_name = "CONDITION", value_parser = values::constraint)]
    pub(crate) constraint: Vec<String>,
    /// Provider to use [default: any]
    #[arg(long, value_parser = values::id::<ProviderId>)]
    pub(crate) provider: Option<ProviderId>,
    /// Least isolation to accept
    #[arg(long, value_name = "LEVEL")]
    pub(crate) isolation: Option<Isolation>,
    /// Higher goes first within the namespace [default: 0]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true,
          value_parser = values::priority, allow_hyphen_values = true)]
    pub(crate) priority: i32,
    /// How long a silent worker keeps the job, 1m to 24h [default: 5m]
    #[arg(long, value_name = "DURATION", value_parser = values::lost_after, allow_hyphen_values = true)]
    pub(crate) lost_after: Option<u64>,
    /// Submit once for this key: the same key with the same job answers the same job
    #[arg(long, value_name = "KEY", value_parser = values::request_id)]
    pub(crate) idempotency_key: Option<String>,
    /// Program and arguments, passed on unchanged
    #[arg(
        value_name = "CMD",
        trailing_var_arg = true,
        required_unless_present = "image"
    )]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
#[command(
    override_usage = "hodei bench [OPTIONS] [--] CMD [ARG]...",
    after_help = "\
Examples:
  hodei bench -- /bin/true                    1000 jobs, 64 at once
  hodei bench --jobs 100 --slots 1 -- true    one after the other: what a single job takes
  hodei bench --rate 50 -o json -- ./work     50 new jobs each second"
)]
pub(crate) struct BenchArgs {
    /// How many jobs
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) jobs: u32,
    /// How many of them are queued or running at once
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = values::slots)]
    pub(crate) slots: usize,
    /// How many to queue each second [default: as many as there are slots for]
    #[arg(long, value_name = "N", value_parser = values::rate)]
    pub(crate) rate: Option<f64>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
    #[command(flatten)]
    pub(crate) job: JobArgs,
}

/// Ends that retries repeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RetryOn {
    Exit,
    Lost,
    Oom,
    Provider,
}

impl RetryOn {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Exit => "exit",
            Self::Lost => "lost",
            Self::Oom => "oom",
            Self::Provider => "provider",
        }
    }
}

/// Levels of isolation, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Isolation {
    Process,
    Container,
    Microvm,
}

impl Isolation {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Container => "container",
            Self::Microvm => "microvm",
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum JobCommand {
    /// Queue a job and print its id
    Submit(Box<SubmitArgs>),
    /// List jobs, newest first
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Show a job
    Get(GetJobArgs),
    /// Wait until jobs have ended; with one job, end with its exit code
    Wait(WaitArgs),
    /// Print a job's output
    Logs(LogsArgs),
    /// Cancel jobs
    Cancel(CancelArgs),
    /// Queue a new job with the spec of an ended one and print its id
    Retry(RetryArgs),
    /// Say what a job waits for, or where it went
    Why(GetJobArgs),
    /// List what happened to a job, oldest first
    Events(GetJobArgs),
}

#[derive(Debug, Args)]
#[command(
    override_usage = "hodei job submit [OPTIONS] [--] CMD [ARG]...",
    after_help = "\
Examples:
  id=$(hodei job submit --name nightly --label team=a -- ./nightly.sh)
  hodei job submit --timeout 10m --retries 3 --retry-on lost,oom -- ./simulate"
)]
pub(crate) struct SubmitArgs {
    /// How to print the job; default: its id alone
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) output: Option<Format>,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
    #[command(flatten)]
    pub(crate) job: JobArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  hodei job list --state queued,running
  hodei job list --label team=a --limit 100 -o json")]
pub(crate) struct ListArgs {
    /// Only jobs in one of these states
    #[arg(long, value_delimiter = ',')]
    pub(crate) state: Vec<StateWord>,
    /// Only jobs with this label; repeatable: all of them
    #[arg(long, value_name = "KEY=VALUE", value_parser = values::label)]
    pub(crate) label: Vec<(String, String)>,
    /// How many, 1 to 1000
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
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

#[derive(Debug, Args)]
pub(crate) struct GetJobArgs {
    /// The job
    #[arg(value_name = "ID", value_parser = values::id::<JobId>)]
    pub(crate) job: JobId,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Exit status: of one job, that of `hodei run`; of several, 0 if all succeeded, else 1.")]
pub(crate) struct WaitArgs {
    /// The jobs
    #[arg(value_name = "ID", required = true, value_parser = values::id::<JobId>)]
    pub(crate) jobs: Vec<JobId>,
    /// Print the ended jobs; default: print nothing
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) output: Option<Format>,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  hodei job logs ID                what the last attempt printed
  hodei job logs -f ID             follow it, and the attempts after it
  hodei job logs --attempt 1 ID    what the first attempt printed

What the job printed on stdout is on stdout, what it printed on stderr is on stderr.")]
pub(crate) struct LogsArgs {
    /// The job
    #[arg(value_name = "ID", value_parser = values::id::<JobId>)]
    pub(crate) job: JobId,
    /// Go on until the job has ended
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Show this attempt [default: the last one]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) attempt: Option<u32>,
    /// Pass control characters on to the terminal
    #[arg(long)]
    pub(crate) raw: bool,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(crate) struct CancelArgs {
    /// The jobs
    #[arg(value_name = "ID", required = true, value_parser = values::id::<JobId>)]
    pub(crate) jobs: Vec<JobId>,
    /// Print the jobs; default: print nothing
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) output: Option<Format>,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RetryArgs {
    /// The ended job
    #[arg(value_name = "ID", value_parser = values::id::<JobId>)]
    pub(crate) job: JobId,
    /// Retry once for this key
    #[arg(long, value_name = "KEY", value_parser = values::request_id)]
    pub(crate) idempotency_key: Option<String>,
    /// How to print the new job; default: its id alone
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) output: Option<Format>,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct WorkerCommand {
    /// The worker's own folder
    #[arg(long, required = true)]
    pub(crate) folder: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Option<WorkerVerb>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum WorkerVerb {
    /// List workers
    #[command(visible_alias = "ls")]
    List(WorkerListArgs),
    /// Show a worker
    Get(WorkerGetArgs),
}

#[derive(Debug, Args)]
pub(crate) struct WorkerListArgs {
    /// Also workers that are gone
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(crate) struct WorkerGetArgs {
    /// The worker
    #[arg(value_name = "ID", value_parser = values::id::<WorkerId>)]
    pub(crate) worker: WorkerId,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ProviderCommand {
    /// List providers
    #[command(visible_alias = "ls")]
    List(ProviderListArgs),
    /// Show a provider
    Get(ProviderGetArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ProviderListArgs {
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ProviderGetArgs {
    /// The provider
    #[arg(value_parser = values::id::<ProviderId>)]
    pub(crate) provider: ProviderId,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

/// Flags of `dev` and `server`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ServeArgs {
    /// Configuration [env: HODEI_CONFIG; default: hodei.toml in the data folder]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where everything is kept [env: HODEI_DATA_DIR; default: ~/.local/share/hodei]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Address for clients; port 0 takes a free one [default: 127.0.0.1:7420]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) listen: Option<String>,
    /// Address for workers; port 0 takes a free one [default: 127.0.0.1:7421]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) worker_listen: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ServerArgs {
    /// Print the settings that result from flags, environment and file, secrets hidden, and end
    #[arg(long)]
    pub(crate) print_config: bool,
    #[command(flatten)]
    pub(crate) serve: ServeArgs,
}
