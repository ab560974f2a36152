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
        (Some("run"), _) | (Some("job"), Some("wait" | "attach")) => FailureStatus {
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
        None => Cli::try_parse_from(&arguments).map_err(|error| suggest(error, &arguments)),
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

/// What other tools call a command, and what it is here.
const ELSEWHERE: [(&str, &str); 24] = [
    ("ps", "job list"),
    ("ls", "job list"),
    ("jobs", "job list"),
    ("squeue", "job list"),
    ("status", "job get"),
    ("show", "job get"),
    ("inspect", "job get"),
    ("describe", "job get"),
    ("kill", "job cancel"),
    ("stop", "job cancel"),
    ("rm", "job cancel"),
    ("delete", "job cancel"),
    ("abort", "job cancel"),
    ("scancel", "job cancel"),
    ("rerun", "job retry"),
    ("restart", "job retry"),
    ("log", "job logs"),
    ("output", "job logs"),
    ("explain", "job why"),
    ("exec", "run"),
    ("start", "dev"),
    ("up", "dev"),
    ("serve", "server"),
    ("nodes", "worker list"),
];

/// `hodei logs` means `hodei job logs`, `hodei ps` means `hodei job list`, `hodei job kill` `hodei job cancel`.
fn suggest(mut error: clap::Error, arguments: &[OsString]) -> clap::Error {
    if error.kind() != ErrorKind::InvalidSubcommand {
        return error;
    }
    let Some(wrong) = error.get(ContextKind::InvalidSubcommand).map(ToString::to_string) else {
        return error;
    };
    let cli = Cli::command();
    let noun = arguments
        .get(1)
        .and_then(|word| word.to_str())
        .filter(|word| *word != wrong);
    let here = |verb: &str| match noun {
        // What follows is said behind the noun that was typed.
        Some(noun) => verb.strip_prefix(noun).map_or(verb, str::trim_start).to_owned(),
        None => verb.to_owned(),
    };
    let of_jobs = cli
        .find_subcommand("job")
        .is_some_and(|job| job.find_subcommand(&wrong).is_some());
    let elsewhere = ELSEWHERE.iter().find(|(word, _)| *word == wrong);
    let right = match (noun, elsewhere) {
        (None, Some((_, right))) => Some((*right).to_owned()),
        (None, None) if of_jobs => Some(format!("job {wrong}")),
        (Some("job"), Some((_, right))) if right.starts_with("job ") => Some(here(right)),
        (Some("worker" | "provider"), Some((_, "job list"))) => Some("list".to_owned()),
        (Some("worker" | "provider"), Some((_, "job get"))) => Some("get".to_owned()),
        _ => None,
    };
    if let Some(right) = right {
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
