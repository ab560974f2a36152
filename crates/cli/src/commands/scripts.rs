//! `hodei completions` and the manual pages: what is made of the definition of the command line alone.

use std::path::Path;

use anyhow::{Context as _, Result};
use clap::CommandFactory as _;

use crate::args::{Cli, Command};
use crate::complete;
use crate::output::print_text;

/// Runs a command that needs no settings; `None` if it is another one.
pub(crate) fn run(command: &Command) -> Option<Result<()>> {
    match command {
        Command::Completions(args) => Some(completions(args.shell)),
        Command::Man(args) => Some(man(&args.folder)),
        _ => None,
    }
}

fn completions(shell: complete::Shell) -> Result<()> {
    let mut script = Vec::new();
    complete::script(shell, &mut script)?;
    print_text(&String::from_utf8(script).context("the completions are no text")?)
}

fn man(folder: &Path) -> Result<()> {
    let shown = folder.display();
    std::fs::create_dir_all(folder).with_context(|| format!("can not make {shown}"))?;
    clap_mangen::generate_to(Cli::command(), folder).with_context(|| format!("can not write into {shown}"))
}
