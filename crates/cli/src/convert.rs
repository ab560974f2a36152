//! From what was typed to the wire: the one place where the command line builds messages.

use std::collections::BTreeMap;
use std::path::Path;

use hodei_jobs::v1;
use hodei_shared::Invalid;
use hodei_shared::labels::Labels;

use crate::args::jobs::{StateWord, StreamWord};
use crate::args::spec::JobArgs;
use crate::spec::JobDocument;

/// The spec that `args` describe, and `file` where they say nothing. `env` is the whole environment, later
/// variables win; `folder` is where a job without a folder runs and where a relative one starts (`run --local`),
/// `None` on a server.
///
/// # Errors
/// [`Invalid`] where flags contradict each other or a relative folder has no start.
pub(crate) fn job_spec(
    args: &JobArgs,
    file: JobDocument,
    env: Vec<(String, String)>,
    folder: Option<&Path>,
) -> Result<v1::JobSpec, Invalid> {
    // A label that two flags name is refused; one that the file names, too, is replaced.
    let mut all_labels = file.labels;
    all_labels.extend(labels(args.label.clone())?);
    let retry_on: Vec<String> = args.retry_on.iter().map(|end| end.word().to_owned()).collect();
    let (command, script, interpreter) = match args.command.is_empty() {
        true => (file.command, file.script, file.interpreter),
        false => (args.command.clone(), String::new(), Vec::new()),
    };
    Ok(v1::JobSpec {
        name: args.name.clone().or(file.name).unwrap_or_default(),
        command,
        script,
        interpreter,
        env: env.into_iter().collect(),
        workdir: workdir(args.workdir.as_deref().or(file.workdir.as_deref()), folder)?,
        cpu_millis: args
            .cpus
            .or(file.resources.cpus.map(|cpus| cpus.0))
            .unwrap_or_default(),
        memory_bytes: args
            .memory
            .or(file.resources.memory.map(|memory| memory.0))
            .unwrap_or_default(),
        timeout_ms: args
            .timeout
            .or(file.timeout.map(|timeout| timeout.0))
            .unwrap_or_default(),
        retries: args.retries.or(file.retry.max).unwrap_or_default(),
        retry_on: or_file(retry_on, file.retry.on.into_iter().map(|word| word.0)),
        labels: all_labels.into_iter().collect(),
        constraints: or_file(
            args.constraint.clone(),
            file.constraints.into_iter().map(|condition| condition.0),
        ),
        provider: args
            .provider
            .clone()
            .map(String::from)
            .or(file.provider)
            .unwrap_or_default(),
        isolation: args
            .isolation
            .map(|i| i.word().to_owned())
            .or(file.isolation)
            .unwrap_or_default(),
        priority: args.priority.or(file.priority).unwrap_or_default(),
        lost_after_ms: args
            .lost_after
            .or(file.lost_after.map(|time| time.0))
            .unwrap_or_default(),
        grace_ms: file.grace.map(|grace| grace.0),
        image: args.image.clone().or(file.image).unwrap_or_default(),
        merge: args.merge || file.merge,
        ..Default::default()
    })
}

fn or_file(flags: Vec<String>, file: impl Iterator<Item = String>) -> Vec<String> {
    match flags.is_empty() {
        true => file.collect(),
        false => flags,
    }
}

/// Labels of flags as the wire has them.
///
/// # Errors
/// [`Invalid`] if one breaks its rule or comes twice.
pub(crate) fn labels(flags: Vec<(String, String)>) -> Result<BTreeMap<String, String>, Invalid> {
    let labels = Labels::new(flags)?;
    Ok(labels
        .iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect())
}

/// The spec of a file alone.
#[cfg(test)]
pub(crate) fn tests_spec(file: JobDocument) -> v1::JobSpec {
    use clap::Parser as _;
    let cli = crate::args::Cli::try_parse_from(["hodei", "job", "submit", "-f", "x"]).expect("valid");
    let crate::args::Command::Job(crate::args::jobs::JobCommand::Submit(args)) = cli.command else {
        panic!("not submit");
    };
    let env = file.env.clone().into_iter().collect();
    job_spec(&args.job, file, env, None).expect("valid")
}

fn workdir(asked: Option<&str>, folder: Option<&Path>) -> Result<String, Invalid> {
    let not_text = || {
        Invalid::new(
            "workdir",
            folder.unwrap_or(Path::new("")).to_string_lossy(),
            "is not UTF-8",
        )
    };
    match (asked, folder) {
        (None, None) => Ok(String::new()),
        (Some(asked), _) if asked.starts_with('/') => Ok(asked.to_owned()),
        (Some(asked), None) => Err(Invalid::new(
            "workdir",
            asked,
            "is not an absolute folder; write one that begins with `/`",
        )),
        (asked, Some(folder)) => {
            let path = asked.map_or(folder.to_owned(), |asked| folder.join(asked));
            path.into_os_string().into_string().map_err(|_| not_text())
        }
    }
}

/// The wire's word for a state.
pub(crate) const fn state(word: StateWord) -> v1::JobState {
    match word {
        StateWord::Queued => v1::JobState::Queued,
        StateWord::Assigned => v1::JobState::Assigned,
        StateWord::Running => v1::JobState::Running,
        StateWord::Succeeded => v1::JobState::Succeeded,
        StateWord::Failed => v1::JobState::Failed,
        StateWord::Cancelled => v1::JobState::Cancelled,
        StateWord::TimedOut => v1::JobState::TimedOut,
    }
}

/// The wire's word for a stream.
pub(crate) const fn stream(word: StreamWord) -> v1::Stream {
    match word {
        StreamWord::Stdout => v1::Stream::Stdout,
        StreamWord::Stderr => v1::Stream::Stderr,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_folder_needs_a_start() {
        let here = Path::new("/home/me");
        assert_eq!(workdir(None, None), Ok(String::new()));
        assert_eq!(workdir(None, Some(here)), Ok("/home/me".into()));
        assert_eq!(workdir(Some("sub"), Some(here)), Ok("/home/me/sub".into()));
        assert_eq!(workdir(Some("/srv"), Some(here)), Ok("/srv".into()));
        assert!(workdir(Some("sub"), None).is_err());
    }
}
