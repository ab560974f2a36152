//! What a job is described with: files, files of variables and flags, which win over both.
//!
//! Everything is read and checked before anything is sent, so that a mistake in the last job of a file queues none
//! of the jobs before it.

mod document;
mod env_file;
mod file;

use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use hodei_jobs::v1;

use crate::args::spec::JobArgs;
use crate::commands::Usage;
use crate::output::{Format, print_text};
use crate::{convert, platform};

pub(crate) use document::JobDocument;

/// The largest file of jobs that is read.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// What a job starts from before its file and flags are looked at.
#[derive(Debug, Default)]
pub(crate) struct Base<'a> {
    /// Variables that everything else wins over.
    pub(crate) env: Vec<(String, String)>,
    /// The folder that relative ones start at, and that a job without one runs in; `None`: on a server.
    pub(crate) folder: Option<&'a Path>,
}

/// The jobs that the flags and their file describe, at least one.
///
/// # Errors
/// What is wrong, and where.
pub(crate) fn jobs(args: &JobArgs, base: &Base<'_>) -> Result<Vec<v1::JobSpec>> {
    let mut env = base.env.clone();
    let mut own = Vec::new();
    for path in &args.env_file {
        own.extend(env_file::parse(&read(path)?, path)?);
    }
    own.extend(args.env.iter().cloned());
    let Some(path) = &args.file else {
        env.extend(own);
        let spec = convert::job_spec(args, JobDocument::default(), env, base.folder);
        return Ok(vec![spec.map_err(Usage::from)?]);
    };
    let documents = file::parse(&read(path)?, path)?;
    let count = documents.len();
    let mut specs = Vec::with_capacity(count);
    for (index, mut document) in documents.into_iter().enumerate() {
        let place = match count {
            1 => file::shown(path),
            _ => format!("{}: job {} of {count}", file::shown(path), index + 1),
        };
        let variables = env.iter().cloned();
        let variables = variables
            .chain(std::mem::take(&mut document.env))
            .chain(own.iter().cloned());
        let spec = convert::job_spec(args, document, variables.collect(), base.folder);
        specs.push(spec.map_err(|wrong| Usage(format!("{place}: {wrong}")))?);
        check(specs.last(), &place)?;
    }
    Ok(specs)
}

/// The only job that the flags and their file describe.
///
/// # Errors
/// As [`jobs`], and if there are several.
pub(crate) fn one(args: &JobArgs, base: &Base<'_>) -> Result<v1::JobSpec> {
    let mut specs = jobs(args, base)?;
    match (specs.pop(), specs.len()) {
        (Some(spec), 0) => Ok(spec),
        (_, others) => Err(Usage(format!(
            "{}: holds {} jobs, and this takes one; `hodei job submit -f` takes them all",
            args.file.as_deref().map(file::shown).unwrap_or_default(),
            others + 1
        ))
        .into()),
    }
}

/// Checks jobs by the server's own rules and prints them as a file.
///
/// # Errors
/// What is wrong, or that nobody reads.
pub(crate) fn dry_run(specs: Vec<v1::JobSpec>, format: Option<Format>) -> Result<()> {
    for spec in &specs {
        check(Some(spec), "")?;
    }
    let documents: Vec<_> = specs.into_iter().map(JobDocument::from).collect();
    print_text(&match format.unwrap_or(Format::Yaml) {
        Format::Yaml => file::yaml(&documents)?,
        Format::Json => file::json(&documents)?,
        Format::Table | Format::Wide | Format::Name => {
            return Err(Usage("--dry-run prints a file: write -o yaml or -o json".to_owned()).into());
        }
    })
}

fn check(spec: Option<&v1::JobSpec>, place: &str) -> Result<()> {
    let broken = spec.map(platform::broken_rules).unwrap_or_default();
    if broken.is_empty() {
        return Ok(());
    }
    let said: Vec<String> = broken.iter().map(ToString::to_string).collect();
    let place = if place.is_empty() {
        String::new()
    } else {
        format!("{place}: ")
    };
    Err(Usage(format!("{place}{}", said.join("; "))).into())
}

fn read(path: &Path) -> Result<String> {
    let shown = file::shown(path);
    let mut bytes = Vec::new();
    let read = match path == Path::new("-") {
        true => std::io::stdin()
            .lock()
            .take(MAX_FILE_BYTES + 1)
            .read_to_end(&mut bytes),
        false => {
            std::fs::File::open(path).and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
        }
    };
    let length = read.map_err(anyhow::Error::from);
    let length = length.with_context(|| Usage(format!("{shown} can not be read")))?;
    if length as u64 > MAX_FILE_BYTES {
        return Err(Usage(format!("{shown} is larger than 64 MiB")).into());
    }
    String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        Usage(format!("{shown}:{line}: is not UTF-8")).into()
    })
}
