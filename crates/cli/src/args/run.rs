//! `hodei run` and `hodei bench`.

use std::path::PathBuf;

use clap::Args;

use super::spec::JobArgs;
use super::{ConnectArgs, OutputArgs};
use crate::output::Format;
use crate::values;

const RUN_EXAMPLES: &str = "\
Examples:
  hodei run -- python train.py --epochs 3
  hodei run --local -- make test
  hodei run --cpus 4 --memory 8GiB --timeout 1h --retries 2 -- ./simulate
  hodei run -f job.yaml --env SEED=7
  tar c src | hodei run -i -- tar x
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
    #[arg(long, group = "printed")]
    pub(crate) detach: bool,
    /// Check the job, print it as a file for -f, and queue nothing
    #[arg(long, group = "printed")]
    pub(crate) dry_run: bool,
    /// With --detach or --dry-run: how to print the job
    #[arg(short = 'o', long = "output", value_name = "FORMAT", requires = "printed")]
    pub(crate) format: Option<Format>,
    /// Pass this command's standard input on to the job; default: it reads /dev/null
    #[arg(short = 'i', long = "stdin", conflicts_with_all = ["detach", "dry_run"])]
    pub(crate) stdin: bool,
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
