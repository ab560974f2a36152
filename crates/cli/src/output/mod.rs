//! What is printed: data on stdout in the format that was asked for, notes and errors on stderr.
//!
//! A reader that closes its end is no error: [`ReaderGone`] ends the command quietly.

mod cells;
pub(crate) mod sink;
pub(crate) mod table;
pub(crate) mod terminal;

use std::io::{self, Write as _};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use serde::Serialize;

use crate::environment::Terminal;
use crate::errors::ReaderGone;

/// How data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    // More columns.
    Wide,
    Json,
    Yaml,
    // The ids alone, one a line.
    Name,
}

/// Data that can be printed in every format.
pub(crate) trait Shown: Serialize {
    /// Columns for people, without a final newline; empty if there is nothing.
    fn table(&self, wide: bool, now: jiff::Timestamp) -> String;

    /// What identifies each thing.
    fn names(&self) -> Vec<String>;
}

/// Prints `data` on stdout.
///
/// # Errors
/// [`ReaderGone`] if nobody reads, else what the system says.
pub(crate) fn print(format: Format, data: &impl Shown) -> Result<()> {
    let now = jiff::Timestamp::now();
    let mut text = match format {
        Format::Table => data.table(false, now),
        Format::Wide => data.table(true, now),
        Format::Json => serde_json::to_string_pretty(data).context("can not write JSON")?,
        Format::Yaml => serde_norway::to_string(data).context("can not write YAML")?,
        Format::Name => data.names().join("\n"),
    };
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    print_text(&text)
}

/// Prints `text` on stdout as it is.
///
/// # Errors
/// [`ReaderGone`] if nobody reads, else what the system says.
pub(crate) fn print_text(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    written(stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()))
}

/// Tells a closed pipe from other failures to write.
///
/// # Errors
/// [`ReaderGone`] if nobody reads, else what the system says.
pub(crate) fn written(result: io::Result<()>) -> Result<()> {
    result.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => ReaderGone.into(),
        _ => anyhow::Error::new(error).context("can not write the output"),
    })
}

/// Prints a line about what happens on stderr. A closed stderr is nobody's problem.
pub(crate) fn note(text: &str) {
    drop(writeln!(io::stderr().lock(), "hodei: {text}"));
}

/// Prints an error on stderr.
pub(crate) fn error(text: &str, terminal: Terminal) {
    let (on, off) = match terminal.stderr && terminal.colour {
        true => ("\x1b[1;31m", "\x1b[0m"),
        false => ("", ""),
    };
    drop(writeln!(io::stderr().lock(), "{on}error:{off} {text}"));
}
