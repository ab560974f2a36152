//! Everyday commands: `cargo xtask ci`, `cargo xtask sim`, `cargo xtask dist`.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

const HELP: &str = "\
Everyday commands of the project.

Usage: cargo xtask COMMAND

  ci                         what must pass before a change lands
  sim [SEEDS [FROM]]         run the simulation over many seeds
  dist                       put what is released into target/dist: hodei, its manual pages and completions
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["ci"] => run("bash", &[".ci/run"], &[]),
        ["sim"] => simulate("200", "0"),
        ["sim", seeds] => simulate(seeds, "0"),
        ["sim", seeds, from] => simulate(seeds, from),
        ["dist"] => distribute(),
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

/// Builds `hodei` and lets it write its own manual pages and completions.
fn distribute() -> Result<()> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    run(
        "cargo",
        &["build", "--release", "-p", "hodei-cli", "--bin", "hodei"],
        &[],
    )?;
    let built = target.join("release/hodei");
    let folder = target.join("dist");
    for part in ["bin", "share/man/man1", "share/completions"] {
        let part = folder.join(part);
        std::fs::create_dir_all(&part).with_context(|| format!("{} can not be made", part.display()))?;
    }
    let hodei = folder.join("bin/hodei");
    std::fs::copy(&built, &hodei).with_context(|| format!("{} can not be copied", built.display()))?;
    let hodei = hodei.to_str().context("the target folder is no text")?;
    let man = folder.join("share/man/man1");
    run(
        hodei,
        &["__man", man.to_str().context("the target folder is no text")?],
        &[],
    )?;
    for shell in ["bash", "zsh", "fish"] {
        let output = Command::new(hodei).args(["completions", shell]).output();
        let output = output.with_context(|| format!("{hodei} can not be started"))?;
        if !output.status.success() {
            bail!("{hodei} completions {shell} failed");
        }
        let file = folder.join(format!("share/completions/hodei.{shell}"));
        std::fs::write(&file, output.stdout)
            .with_context(|| format!("{} can not be written", file.display()))?;
    }
    Ok(())
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
