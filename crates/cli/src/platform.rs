//! The server and the worker that are in this binary: the only place that knows their crates.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use tokio_util::sync::CancellationToken;

use crate::args::ServeArgs;

/// Which server to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// `hodei dev`.
    Dev,
    /// `hodei server`.
    Server,
    /// `hodei run --local`.
    Local,
}

/// What a server says once it serves.
#[derive(Debug)]
pub(crate) struct Ready {
    /// URL for clients.
    pub(crate) address: String,
    /// Socket for clients.
    pub(crate) socket: PathBuf,
    /// File with the first token.
    pub(crate) admin_token_file: PathBuf,
}

/// Settings of a server.
pub(crate) struct Settings;

/// Reads the settings.
pub(crate) fn settings(_mode: Mode, _args: Option<&ServeArgs>) -> Result<Settings> {
    anyhow::bail!("this build has no server in it")
}

impl Settings {
    /// The settings as text, secrets hidden.
    pub(crate) fn print(&self) -> String {
        String::new()
    }
}

/// Serves.
pub(crate) async fn serve(
    _settings: Settings,
    _ready: impl FnOnce(Ready) + Send + 'static,
    _cancel: CancellationToken,
) -> Result<()> {
    anyhow::bail!("this build has no server in it")
}

/// Logging.
pub(crate) fn init_logging() {}

/// Data folder.
pub(crate) fn data_dir(asked: Option<PathBuf>) -> PathBuf {
    asked.unwrap_or_default()
}

/// Worker.
pub(crate) fn worker(_folder: &Path) -> ExitCode {
    ExitCode::FAILURE
}
