//! From what was typed to the wire: the one place where the command line builds messages.

use std::path::Path;

use hodei_jobs::v1;
use hodei_shared::Invalid;
use hodei_shared::labels::Labels;

use crate::args::{JobArgs, StateWord};

/// The spec that `args` describe. `defaults` are variables that `--env` overrides; `folder` is where a job
/// without `--workdir` runs and where a relative one starts (`run --local`), `None` on a server.
///
/// # Errors
/// [`Invalid`] where flags contradict each other or a relative folder has no start.
pub(crate) fn job_spec(
    args: &JobArgs,
    defaults: Vec<(String, String)>,
    folder: Option<&Path>,
) -> Result<v1::JobSpec, Invalid> {
    let labels = Labels::new(args.label.iter().cloned())?;
    Ok(v1::JobSpec {
        name: args.name.clone().unwrap_or_default(),
        command: args.command.clone(),
        env: defaults.into_iter().chain(args.env.iter().cloned()).collect(),
        workdir: workdir(args.workdir.as_deref(), folder)?,
        cpu_millis: args.cpus.unwrap_or_default(),
        memory_bytes: args.memory.unwrap_or_default(),
        timeout_ms: args.timeout.unwrap_or_default(),
        retries: args.retries,
        retry_on: args.retry_on.iter().map(|end| end.word().to_owned()).collect(),
        labels: labels.iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
        constraints: args.constraint.clone(),
        provider: args.provider.clone().map(String::from).unwrap_or_default(),
        isolation: args.isolation.map(|i| i.word().to_owned()).unwrap_or_default(),
        priority: args.priority,
        lost_after_ms: args.lost_after.unwrap_or_default(),
        image: args.image.clone().unwrap_or_default(),
        ..Default::default()
    })
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
