//! What the process was started with, read once: everything below takes it as a value, so tests can inject it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::path::PathBuf;

use hodei_shared::secret::SecretString;

/// The part of the environment that the command line looks at.
#[derive(Debug, Default)]
pub(crate) struct Environment {
    /// HODEI_SERVER.
    pub(crate) server: Option<String>,
    /// HODEI_TOKEN.
    pub(crate) token: Option<SecretString>,
    /// HODEI_CA_FILE.
    pub(crate) ca_file: Option<PathBuf>,
    /// HODEI_NAMESPACE; empty: that of the token.
    pub(crate) namespace: String,
    /// The data folder of HODEI_DATA_DIR or the default one.
    pub(crate) data_dir: PathBuf,
    /// The user that this process acts as.
    pub(crate) uid: u32,
    /// Whether logging was asked for.
    pub(crate) log: bool,
    /// What stands on the other side of stdout and stderr.
    pub(crate) terminal: Terminal,
    /// All variables that are UTF-8, for `run --local`.
    pub(crate) variables: BTreeMap<String, String>,
}

/// Which outputs are terminals, and whether they may be coloured.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Terminal {
    /// Whether stdout is one.
    pub(crate) stdout: bool,
    /// Whether stderr is one.
    pub(crate) stderr: bool,
    /// Whether colours are wanted where there is one.
    pub(crate) colour: bool,
}

impl Environment {
    /// Reads the process. `data_dir` applies the default where HODEI_DATA_DIR is not set.
    pub(crate) fn of_process(data_dir: impl FnOnce(Option<PathBuf>) -> PathBuf) -> Self {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let text = |name: &str| set(name).and_then(|value| value.into_string().ok());
        let pair =
            |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
        Self {
            server: text("HODEI_SERVER"),
            token: text("HODEI_TOKEN").map(SecretString::new),
            ca_file: set("HODEI_CA_FILE").map(PathBuf::from),
            namespace: text("HODEI_NAMESPACE").unwrap_or_default(),
            data_dir: data_dir(set("HODEI_DATA_DIR").map(PathBuf::from)),
            uid: rustix::process::geteuid().as_raw(),
            log: set("HODEI_LOG").is_some(),
            terminal: Terminal {
                stdout: std::io::stdout().is_terminal(),
                stderr: std::io::stderr().is_terminal(),
                colour: set("NO_COLOR").is_none() && text("TERM").as_deref() != Some("dumb"),
            },
            variables: std::env::vars_os().filter_map(pair).collect(),
        }
    }

    /// The variables that a job of `run --local` gets from its caller: PATH and LANG, or with `all` every one
    /// that is not Hodei's own.
    pub(crate) fn for_local_job(&self, all: bool) -> Vec<(String, String)> {
        let passed = |name: &str| match all {
            true => !name.is_empty() && !name.starts_with("HODEI_"),
            false => name == "PATH" || name == "LANG",
        };
        let chosen = self.variables.iter().filter(|(name, _)| passed(name));
        chosen
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_local_job_gets_nothing_of_hodei() {
        let variables = [
            ("PATH", "/bin"),
            ("LANG", "C"),
            ("EDITOR", "vi"),
            ("HODEI_TOKEN", "secret"),
        ];
        let environment = Environment {
            variables: variables.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            ..Default::default()
        };
        let names = |all| -> Vec<String> {
            environment
                .for_local_job(all)
                .into_iter()
                .map(|(k, _)| k)
                .collect()
        };
        assert_eq!(names(false), ["LANG", "PATH"]);
        assert_eq!(names(true), ["EDITOR", "LANG", "PATH"]);
    }
}
