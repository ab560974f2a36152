//! The `hodei` command: everything a person needs, with the server and the worker in it.
//!
//! Arguments are read before any thread exists, because a worker must start without one. Data goes to stdout,
//! everything else to stderr; exit statuses are those of the module `exit`.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod args;
mod commands;
mod complete;
mod connection;
mod convert;
mod discovery;
mod environment;
mod errors;
mod exit;
mod feed;
mod follow;
mod output;
mod panics;
mod platform;
mod seek;
mod signals;
mod spec;
mod usage;
mod values;
mod waiting;

use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::args::Command;
use crate::args::machines::WorkerCommand;
use crate::environment::Environment;

fn main() -> ExitCode {
    complete::answer();
    let arguments: Vec<_> = std::env::args_os().collect();
    let failed = usage::failure_status(&arguments);
    let command = match usage::parse(arguments) {
        Ok(cli) => cli.command,
        Err(status) => return ExitCode::from(status),
    };
    if let Command::Worker(WorkerCommand {
        folder: Some(folder),
        command: None,
    }) = &command
    {
        return platform::worker(folder);
    }
    if let Some(printed) = commands::scripts::run(&command) {
        return ended(printed.map(|()| 0), failed, environment::Terminal::default());
    }
    let environment = match Environment::of_process(platform::data_dir) {
        Ok(environment) => environment,
        Err(wrong) => {
            output::error(&format!("{wrong:#}"), environment::Terminal::default());
            return ExitCode::from(failed.usage);
        }
    };
    let ran = panics::caught(|| run(command, &environment));
    ended(ran, failed, environment.terminal)
}

/// Says what went wrong, if something did. That nobody reads is no error.
fn ended(result: Result<u8>, failed: usage::FailureStatus, terminal: environment::Terminal) -> ExitCode {
    let status = match result {
        Ok(status) => status,
        Err(error) if error.is::<errors::ReaderGone>() => 0,
        Err(error) => {
            output::error(&format!("{error:#}"), terminal);
            match error.is::<commands::Usage>() {
                true => failed.usage,
                false => failed.other,
            }
        }
    };
    ExitCode::from(status)
}

fn run(command: Command, environment: &Environment) -> Result<u8> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    // One for what blocks.
    panics::can_start_threads(threads + 1)
        .context("can not start threads; look at `ulimit -u` and at how many processes there are")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .context("can not start threads")?;
    let status = runtime.block_on(async {
        match command {
            Command::Run(args) => commands::run::run(*args, environment).await,
            Command::Dev(args) => commands::serve::dev(args, environment).await,
            Command::Server(args) => commands::serve::server(args, environment).await,
            Command::Job(command) => commands::job::run(command, environment).await,
            Command::Bench(args) => commands::bench::bench(*args, environment).await,
            Command::Doctor(args) => commands::doctor::run(args, environment).await,
            Command::Provider(command) => commands::provider::run(command, environment).await,
            Command::Queue(command) => commands::queue::run(command, environment).await,
            Command::Worker(WorkerCommand {
                command: Some(command),
                ..
            }) => commands::worker::run(command, environment).await,
            Command::Completions(_) | Command::Man(_) => Ok(0),
            Command::Worker(_) => Err(commands::Usage("--folder is missing".to_owned()).into()),
        }
    });
    // A write to a reader that does not read must not hold up the end.
    runtime.shutdown_background();
    status
}
