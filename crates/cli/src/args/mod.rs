//! What can be typed: commands, flags and their help. Values are checked here, before anything is contacted.
//!
//! Only what has a meaning in this release exists; a flag that would be ignored is an error instead.

pub(crate) mod jobs;
pub(crate) mod machines;
pub(crate) mod run;
pub(crate) mod spec;

use clap::{Args, Parser, Subcommand};
use clap_complete::engine::ArgValueCompleter;
use hodei_shared::ids::JobId;

use self::jobs::JobCommand;
use self::machines::{DoctorArgs, ProviderCommand, QueueCommand, ServeArgs, ServerArgs, WorkerCommand};
use self::run::{BenchArgs, RunArgs};
use crate::complete;
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
  hodei doctor                                see what this machine can do

Environment:
  HODEI_SERVER, HODEI_TOKEN, HODEI_CA_FILE    the server, the token, whom to trust
  HODEI_NAMESPACE                             where jobs are queued
  HODEI_DATA_DIR, HODEI_CONFIG, HODEI_LOG     folder, file and logging of a server
  NO_COLOR                                    no colours on a terminal either";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Queue a command, follow its output and end with its exit code
    Run(Box<RunArgs>),
    /// Start a whole platform on this machine: embedded store, process provider
    #[command(after_help = "\
Examples:
  hodei dev                                   on 127.0.0.1:7420, data in the data folder
  hodei dev --data-dir ./try --listen 127.0.0.1:0

Ctrl-C ends running jobs as cancelled and keeps queued ones for the next start.")]
    Dev(ServeArgs),
    /// Start a server
    #[command(after_help = "\
Examples:
  hodei server --config /etc/hodei/hodei.toml
  hodei server --print-config                 the settings that would hold

SIGTERM leaves workers and jobs running: the next start takes them over.")]
    Server(ServerArgs),
    /// List and show workers; with --folder, be one (providers start that, people do not)
    #[command(after_help = "\
Examples:
  hodei worker list                           those that are there
  hodei worker list --all -o json             also those that are gone")]
    Worker(WorkerCommand),
    /// Submit, list, follow and cancel jobs
    #[command(
        subcommand,
        after_help = "\
Examples:
  id=$(hodei job submit -- ./train.sh)        queue
  hodei job wait \"$id\" && hodei job logs \"$id\"
  hodei job list --state queued,running       what is going on
  hodei job cancel --label team=a --yes       end many"
    )]
    Job(JobCommand),
    /// See where jobs can run
    #[command(
        subcommand,
        after_help = "\
Examples:
  hodei provider list -o wide                 with the labels that --constraint sees
  hodei provider get local"
    )]
    Provider(ProviderCommand),
    /// See how many jobs wait and run
    #[command(
        subcommand,
        after_help = "\
Examples:
  hodei queue status                          how many jobs wait and run, and where"
    )]
    Queue(QueueCommand),
    /// Measure: run many real jobs through the whole path and print how long each part took
    Bench(Box<BenchArgs>),
    /// Look whether this machine can run a platform, and say what to do where it can not
    Doctor(DoctorArgs),
    /// Print the completions of a shell
    #[command(after_help = "\
Examples:
  source <(hodei completions bash)            in ~/.bashrc
  source <(hodei completions zsh)             in ~/.zshrc
  hodei completions fish | source             in ~/.config/fish/config.fish

They complete commands and flags, and the ids of jobs that the server has.")]
    Completions(CompletionsArgs),
    /// Write the manual pages into a folder
    #[command(name = "__man", hide = true)]
    Man(ManArgs),
}

/// How a client command finds its server.
#[derive(Debug, Clone, Args)]
pub(crate) struct ConnectArgs {
    /// Server to use [env: HODEI_SERVER]; default: the `hodei dev` of the data folder
    #[arg(long, value_name = "URL")]
    pub(crate) server: Option<String>,
}

/// How data is printed.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct OutputArgs {
    /// How to print
    #[arg(short = 'o', long = "output", value_name = "FORMAT", default_value = "table")]
    pub(crate) format: Format,
}

/// How the jobs that a command dealt with are printed, if they are.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct ResultArgs {
    /// Print the jobs in this format; default: the ids of new jobs, nothing of others
    #[arg(short = 'o', long = "output", value_name = "FORMAT")]
    pub(crate) format: Option<Format>,
}

/// One job of one server.
#[derive(Debug, Clone, Args)]
pub(crate) struct JobTarget {
    /// The job
    #[arg(value_name = "ID", value_parser = values::id::<JobId>, add = ArgValueCompleter::new(complete::jobs))]
    pub(crate) job: JobId,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub(crate) shell: complete::Shell,
}

#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// The folder, which is made if it is not there
    pub(crate) folder: std::path::PathBuf,
}
