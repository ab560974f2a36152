//! Everyday commands: `cargo xtask ci`, `cargo xtask sim`.
#![forbid(unsafe_code)]

use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

const HELP: &str = "\
Everyday commands of the project.

Usage: cargo xtask COMMAND

  ci                         what must pass before a change lands
  sim [SEEDS [FROM]]         run the simulation over many seeds
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["ci"] => run("bash", &[".ci/run"], &[]),
        ["sim"] => simulate("200", "0"),
        ["sim", seeds] => simulate(seeds, "0"),
        ["sim", seeds, from] => simulate(seeds, from),
        _ => Err(anyhow::anyhow!("{HELP}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::print_stderr)]
fn report(error: &anyhow::Error) {
    eprintln!("{error:#}");
}

fn simulate(seeds: &str, from: &str) -> Result<()> {
    for number in [seeds, from] {
        number
            .parse::<u64>()
            .with_context(|| format!("`{number}` is not a number of seeds"))?;
    }
    let arguments = [
        "test",
        "--release",
        "-p",
        "hodei-tests",
        "--test",
        "simulation",
        "--",
        "--nocapture",
        "many_seeds",
    ];
    run(
        "cargo",
        &arguments,
        &[("HODEI_SIM_SEEDS", seeds), ("HODEI_SIM_FROM", from)],
    )
}

fn run(program: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Result<()> {
    let status = Command::new(program)
        .args(arguments)
        .envs(environment.iter().copied())
        .status()
        .with_context(|| format!("{program} can not be started"))?;
    if !status.success() {
        bail!("{program} {} failed", arguments.join(" "));
    }
    Ok(())
}
