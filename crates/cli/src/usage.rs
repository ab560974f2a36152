//! Wrong command lines: what is said about them and how they end.

use std::ffi::{OsStr, OsString};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory as _, Parser as _};
use hodei_shared::text;

use crate::args::Cli;
use crate::exit;

/// What failures of one command end with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FailureStatus {
    /// A wrong flag or value.
    pub(crate) usage: u8,
    /// Everything else.
    pub(crate) other: u8,
}

/// The statuses for a command line. Those of `run` and `wait` stay apart from what the job may end with.
pub(crate) fn failure_status(arguments: &[OsString]) -> FailureStatus {
    let word = |index: usize| arguments.get(index).and_then(|word| word.to_str());
    match (word(1), word(2)) {
        (Some("run"), _) | (Some("job"), Some("wait")) => FailureStatus {
            usage: exit::HODEI_FAILED,
            other: exit::HODEI_FAILED,
        },
        _ => FailureStatus {
            usage: exit::USAGE,
            other: 1,
        },
    }
}

/// Reads the command line, or prints what is wrong with it, or the help that it asks for.
///
/// # Errors
/// The status to end with.
pub(crate) fn parse(arguments: Vec<OsString>) -> Result<Cli, u8> {
    let failed = failure_status(&arguments);
    let parsed = match arguments
        .iter()
        .enumerate()
        .find(|(_, argument)| argument.to_str().is_none())
    {
        Some((index, argument)) => {
            Err(Cli::command().error(ErrorKind::InvalidUtf8, not_text(index, argument)))
        }
        None => Cli::try_parse_from(&arguments).map_err(|error| suggest_job_verb(error, &arguments)),
    };
    parsed.map_err(|error| {
        // Nobody is left to be told that nobody reads.
        drop(error.print());
        match error.use_stderr() {
            true => failed.usage,
            false => 0,
        }
    })
}

fn not_text(index: usize, argument: &OsStr) -> String {
    let shown = text::shorten(&argument.to_string_lossy(), 80);
    format!(
        "argument {index} is not UTF-8: `{shown}`; jobs travel as UTF-8 text, so write such bytes into a file"
    )
}

/// `hodei logs` means `hodei job logs`.
fn suggest_job_verb(mut error: clap::Error, arguments: &[OsString]) -> clap::Error {
    let cli = Cli::command();
    let verb = arguments.get(1).and_then(|word| word.to_str()).filter(|word| {
        let jobs = cli.find_subcommand("job");
        error.kind() == ErrorKind::InvalidSubcommand
            && jobs.is_some_and(|job| job.find_subcommand(word).is_some())
    });
    if let Some(verb) = verb {
        let right = format!("job {verb}");
        error.insert(
            ContextKind::SuggestedSubcommand,
            ContextValue::Strings(vec![right]),
        );
    }
    error
}

#[cfg(test)]
#[path = "usage_tests.rs"]
mod tests;
