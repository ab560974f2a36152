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

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow};
use hodei_jobs::v1;
use hodei_server_interface::grpc::convert;
use hodei_shared::Invalid;
use tracing_subscriber::EnvFilter;

pub use compose::{Stop, run};

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

/// The rules that a job's specification breaks; empty if a server would take it.
pub fn broken_rules(spec: v1::JobSpec) -> Vec<Invalid> {
    convert::job_spec(spec).err().unwrap_or_default()
}

/// Writes logs to standard error, filtered by HODEI_LOG (`info`, `debug`, `hodei_server_application=trace`, …).
/// Does nothing if something else in this process logs already.
///
/// # Errors
/// If HODEI_LOG is no filter.
pub fn init_logging() -> Result<()> {
    let filter = log_filter(std::env::var_os("HODEI_LOG"))?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // A log that can not be written, on a full disk, must end nothing: the default is a panic.
        .log_internal_errors(false)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    // Somebody else's subscriber is as good.
    let _ = subscriber.try_init();
    Ok(())
}

/// The filter that HODEI_LOG asks for; `info` where it asks for nothing.
fn log_filter(asked: Option<OsString>) -> Result<EnvFilter> {
    const EXAMPLE: &str = "write info, debug or hodei_server_application=trace";
    let Some(asked) = asked.filter(|asked| !asked.is_empty()) else {
        return Ok(EnvFilter::new("info"));
    };
    let text = asked
        .into_string()
        .map_err(|asked| anyhow!("HODEI_LOG: `{}` is not UTF-8; {EXAMPLE}", asked.to_string_lossy()))?;
    EnvFilter::builder()
        .parse(&text)
        .with_context(|| format!("HODEI_LOG: `{text}` is no filter; {EXAMPLE}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;

    #[test]
    fn a_log_filter_is_read_or_refused_by_name() {
        for good in ["", "info", "debug,hodei_server_application=trace"] {
            assert!(log_filter(Some(good.into())).is_ok(), "{good}");
        }
        for bad in ["bogus===".into(), OsString::from_vec(b"info\xff".to_vec())] {
            let error = format!("{:#}", log_filter(Some(bad.clone())).expect_err("refused"));
            let shown = bad.to_string_lossy();
            assert!(
                error.starts_with(&format!("HODEI_LOG: `{shown}`")) && error.contains("write info"),
                "{error}"
            );
        }
    }
}
