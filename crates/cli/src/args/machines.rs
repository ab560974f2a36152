//! `hodei worker`, `provider`, `dev`, `server` and `doctor`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use hodei_shared::ids::{ProviderId, WorkerId};

use super::{ConnectArgs, OutputArgs};
use crate::values;

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
    /// Let a worker take no more jobs and leave when its last one has ended
    #[command(after_help = "\
Examples:
  hodei worker drain ID --reason 'new kernel'")]
    Drain(WorkerDrainArgs),
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

#[derive(Debug, Args)]
pub(crate) struct WorkerDrainArgs {
    #[command(flatten)]
    pub(crate) worker: WorkerGetArgs,
    #[command(flatten)]
    pub(crate) why: WhyArgs,
}

/// Why something is taken out of service.
#[derive(Debug, Args)]
pub(crate) struct WhyArgs {
    /// Why, for those who look at it
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(crate) reason: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ProviderCommand {
    /// List providers
    #[command(visible_alias = "ls")]
    List(ProviderListArgs),
    /// Show a provider
    Get(ProviderGetArgs),
    /// Ask a provider how it is, now; ends with 1 if it is not well
    Health(ProviderGetArgs),
    /// Give a provider no new work and let its workers leave, until it is resumed
    #[command(after_help = "\
Examples:
  hodei provider drain local --reason 'disk is replaced'
  hodei provider resume local")]
    Drain(ProviderDrainArgs),
    /// Give a drained provider work again
    Resume(ProviderGetArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ProviderDrainArgs {
    #[command(flatten)]
    pub(crate) provider: ProviderGetArgs,
    #[command(flatten)]
    pub(crate) why: WhyArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum QueueCommand {
    /// Count the jobs that wait and run, and the workers that run them
    #[command(after_help = "\
Examples:
  hodei queue status
  hodei queue status -o json | jq .ready")]
    Status(QueueStatusArgs),
}

#[derive(Debug, Args)]
pub(crate) struct QueueStatusArgs {
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
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

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  hodei doctor                                what holds, what does not, what to do
  hodei doctor -o json                        the same for a program

Exit status: 0 if all that is needed is there, also with warnings; 1 if something needed is missing.")]
pub(crate) struct DoctorArgs {
    /// Folder to look at [env: HODEI_DATA_DIR; default: ~/.local/share/hodei]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) data_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}
