//! The server and the worker that are in this binary: the only place that knows their crates.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use hodei_jobs::v1;
use hodei_shared::Invalid;

pub(crate) use hodei_server_bin::settings::{Flags, Mode, Settings};
pub(crate) use hodei_server_bin::{Ready, Stop};

/// The settings that result from flags, environment and file.
///
/// # Errors
/// If one of them is wrong.
pub(crate) fn settings(mode: Mode, flags: &Flags) -> Result<Settings> {
    Settings::load(mode, flags)
}

/// The server's rules that a job breaks.
pub(crate) fn broken_rules(spec: &v1::JobSpec) -> Vec<Invalid> {
    hodei_server_bin::broken_rules(spec.clone())
}

/// Serves until `stop`; `ready` is called once clients can connect.
///
/// # Errors
/// If the server can not start, or does not end well.
pub(crate) async fn serve(
    settings: Settings,
    ready: impl FnOnce(Ready) + Send + 'static,
    stop: impl Into<Stop>,
) -> Result<()> {
    hodei_server_bin::run(settings, ready, stop).await
}

/// Logs what the server does to stderr.
///
/// # Errors
/// If HODEI_LOG is no filter.
pub(crate) fn init_logging() -> Result<()> {
    hodei_server_bin::init_logging()
}

/// The data folder that was asked for, or the default one.
pub(crate) fn data_dir(asked: Option<PathBuf>) -> PathBuf {
    hodei_server_bin::data_dir(asked)
}

/// Is a worker until it has nothing to do any more. No thread may exist yet.
pub(crate) fn worker(folder: &Path) -> ExitCode {
    hodei_worker_bin::run(folder)
}
