//! Completions: the shell calls this program again to complete what was typed so far, so that ids of jobs are
//! those that the server has now. A server that does not answer at once completes nothing.

use std::ffi::OsStr;
use std::io::Write;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{CommandFactory as _, ValueEnum};
use clap_complete::engine::CompletionCandidate;
use clap_complete::env::{CompleteEnv, Shells};
use hodei_jobs::{v1, view};
use hodei_shared::text;

use crate::args::{Cli, ConnectArgs};
use crate::commands;
use crate::environment::Environment;
use crate::platform;

/// The variable by which a shell asks for completions.
const VARIABLE: &str = "HODEI_COMPLETE";
/// How long a person who pressed Tab waits for ids.
const PATIENCE: Duration = Duration::from_millis(800);
/// How many ids are offered.
const MOST: u32 = 100;

/// Shells that can ask for completions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Answers a shell that asks for completions, and ends; does nothing if none asks. No thread may exist yet.
pub(crate) fn answer() {
    if std::env::var_os(VARIABLE).is_some() {
        CompleteEnv::with_factory(Cli::command).var(VARIABLE).complete();
    }
}

/// Writes the script that makes a shell ask.
///
/// # Errors
/// What the system says about the output.
pub(crate) fn script(shell: Shell, out: &mut dyn Write) -> Result<()> {
    let name = match shell {
        Shell::Bash => "bash",
        Shell::Zsh => "zsh",
        Shell::Fish => "fish",
    };
    let shells = Shells::builtins();
    let completer = shells.completer(name).context("no completions for this shell")?;
    completer
        .write_registration(VARIABLE, "hodei", "hodei", "hodei", out)
        .context("can not write the completions")
}

/// The ids of jobs, newest first, that begin with what was typed.
pub(crate) fn jobs(typed: &OsStr) -> Vec<CompletionCandidate> {
    let typed = typed.to_str().unwrap_or_default();
    let found = found().unwrap_or_default();
    let found = found.into_iter().filter(|job| job.id.starts_with(typed));
    found
        .map(|job| {
            let name = job.name.as_deref().unwrap_or_default();
            let about = format!("{} {}", job.state, text::shorten(name, 40));
            CompletionCandidate::new(job.id).help(Some(about.trim_end().to_owned().into()))
        })
        .collect()
}

fn found() -> Result<Vec<view::Job>> {
    let environment = Environment::of_process(platform::data_dir)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let request = v1::ListJobsRequest {
        page_size: MOST,
        ..Default::default()
    };
    let answer = runtime.block_on(async {
        tokio::time::timeout(PATIENCE, async {
            let client = commands::connect(&ConnectArgs { server: None }, &environment).await?;
            anyhow::Ok(client.jobs.clone().list_jobs(request).await?.into_inner())
        })
        .await
    });
    Ok(view::Jobs::from(answer??).jobs)
}
