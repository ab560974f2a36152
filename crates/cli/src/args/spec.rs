//! The flags that describe a job. Each of them wins over the same key of a file.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use hodei_shared::ids::ProviderId;

use crate::values;

/// What describes a job.
#[derive(Debug, Clone, Args)]
pub(crate) struct JobArgs {
    /// File with the job in YAML or JSON, `-` for stdin; flags win over it
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// What to call the job
    #[arg(long, value_parser = values::name)]
    pub(crate) name: Option<String>,
    /// Image to run in, on a provider that has images
    #[arg(long, value_parser = values::image)]
    pub(crate) image: Option<String>,
    /// Variable of the job's environment; repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = values::env)]
    pub(crate) env: Vec<(String, String)>,
    /// File of variables, one NAME=VALUE a line; --env wins; repeatable
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
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
    /// How often to repeat an attempt that failed [default: 0]
    #[arg(long, value_name = "N", value_parser = values::retries, allow_hyphen_values = true)]
    pub(crate) retries: Option<u32>,
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
    #[arg(long, value_name = "N", value_parser = values::priority, allow_hyphen_values = true)]
    pub(crate) priority: Option<i32>,
    /// How long a silent worker keeps the job, 1m to 24h [default: 5m]
    #[arg(long, value_name = "DURATION", value_parser = values::lost_after, allow_hyphen_values = true)]
    pub(crate) lost_after: Option<u64>,
    /// One pipe for stdout and stderr, so that their order is exact; all of it is stdout
    #[arg(long)]
    pub(crate) merge: bool,
    /// Submit once for this key: the same key with the same job answers the same job
    #[arg(long, value_name = "KEY", value_parser = values::request_id)]
    pub(crate) idempotency_key: Option<String>,
    /// Program and arguments, passed on unchanged
    #[arg(
        value_name = "CMD",
        trailing_var_arg = true,
        required_unless_present_any = ["image", "file"]
    )]
    pub(crate) command: Vec<String>,
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
