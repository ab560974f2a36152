//! The server as a program: its settings, and the composition of all its parts.
//!
//! The one place that knows every adapter. `hodei-server` and the command line both call [`run`]; three modes differ
//! in defaults and in what their end means ([`settings::Mode`]).
#![forbid(unsafe_code)]

mod compose;
mod doors;
mod first_token;
mod folder;
mod harden;
mod providers;
pub mod settings;

use std::path::PathBuf;

use tracing_subscriber::EnvFilter;

pub use compose::run;

/// What a server says once it serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// Where clients reach it: a URL.
    pub address: String,
    /// Where clients of this machine reach it.
    pub socket: PathBuf,
    /// Where the first token is written; there only if this data folder had none before.
    pub admin_token_file: PathBuf,
}

/// The data folder: the one that is asked for, else the user's own, for root `/var/lib/hodei`.
pub fn data_dir(asked: Option<PathBuf>) -> PathBuf {
    settings::Environment::of_process().data_dir_or_default(asked)
}

/// Writes logs to standard error, filtered by HODEI_LOG (`info`, `debug`, `hodei_server_application=trace`, …).
/// Does nothing if something else in this process logs already.
pub fn init_logging() {
    let filter = EnvFilter::try_from_env("HODEI_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // A log that can not be written, on a full disk, must end nothing: the default is a panic.
        .log_internal_errors(false)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    // Somebody else's subscriber is as good.
    let _ = subscriber.try_init();
}
