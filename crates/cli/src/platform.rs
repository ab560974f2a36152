//! The server and the worker that are in this binary: the only place that knows their crates.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use tokio_util::sync::CancellationToken;

use crate::args::ServeArgs;

pub(crate) use hodei_server_bin::Ready;
pub(crate) use hodei_server_bin::settings::{Mode, Settings};

/// The settings that result from flags, environment and file.
///
/// # Errors
/// If one of them is wrong.
pub(crate) fn settings(mode: Mode, args: Option<&ServeArgs>) -> Result<Settings> {
    let flags = args.map(|args| hodei_server_bin::settings::Flags {
        config: args.config.clone(),
        data_dir: args.data_dir.clone(),
        listen: args.listen.clone(),
        worker_listen: args.worker_listen.clone(),
    });
    Settings::load(mode, &flags.unwrap_or_default())
}

/// Serves until `cancel` is; `ready` is called once clients can connect.
///
/// # Errors
/// If the server can not start, or does not end well.
pub(crate) async fn serve(
    settings: Settings,
    ready: impl FnOnce(Ready) + Send + 'static,
    cancel: CancellationToken,
) -> Result<()> {
    hodei_server_bin::run(settings, ready, cancel).await
}

/// Logs what the server does to stderr.
pub(crate) fn init_logging() {
    hodei_server_bin::init_logging();
}

/// The data folder that was asked for, or the default one.
pub(crate) fn data_dir(asked: Option<PathBuf>) -> PathBuf {
    hodei_server_bin::data_dir(asked)
}

/// Is a worker until it has nothing to do any more. No thread may exist yet.
pub(crate) fn worker(folder: &Path) -> ExitCode {
    hodei_worker_bin::run(folder)
}
