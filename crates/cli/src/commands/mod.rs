//! One file per command, or per thing that commands are about.

pub(crate) mod bench;
pub(crate) mod doctor;
pub(crate) mod job;
pub(crate) mod local;
pub(crate) mod logs;
pub(crate) mod many;
pub(crate) mod provider;
pub(crate) mod queue;
pub(crate) mod run;
pub(crate) mod scripts;
pub(crate) mod serve;
pub(crate) mod wait;
pub(crate) mod worker;

use anyhow::Result;
use hodei_shared::Invalid;

use crate::args::ConnectArgs;
use crate::connection::Client;
use crate::discovery;
use crate::environment::Environment;

/// Finds the server and connects to it.
///
/// # Errors
/// If there is none, or it can not be talked to.
pub(crate) async fn connect(args: &ConnectArgs, environment: &Environment) -> Result<Client> {
    let server = discovery::find(args.server.as_deref(), environment)?;
    Client::connect(&server, environment.uid).await
}

/// A wrong flag or value that only shows once all flags are known.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

impl From<Invalid> for Usage {
    fn from(invalid: Invalid) -> Self {
        Self(format!("--{invalid}"))
    }
}

/// The request id of a call: what the caller chose, or a fresh one.
pub(crate) fn request_id(chosen: Option<String>) -> String {
    chosen.unwrap_or_else(|| uuid::Uuid::now_v7().to_string())
}
