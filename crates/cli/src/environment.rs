//! What the process was started with, read once: everything below takes it as a value, so tests can inject it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::IsTerminal as _;
use std::path::PathBuf;

use anyhow::{Result, anyhow};
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
    ///
    /// # Errors
    /// Names the variable whose value is no text.
    pub(crate) fn of_process(data_dir: impl FnOnce(Option<PathBuf>) -> PathBuf) -> Result<Self> {
        Self::of(std::env::vars_os().collect(), data_dir)
    }

    fn of(
        all: BTreeMap<OsString, OsString>,
        data_dir: impl FnOnce(Option<PathBuf>) -> PathBuf,
    ) -> Result<Self> {
        let set = |name: &str| {
            all.get(OsStr::new(name))
                .filter(|value| !value.is_empty())
                .cloned()
        };
        let text =
            |name: &str| set(name).map(|value| value.into_string().map_err(|value| no_text(name, &value)));
        let pair = |(name, value): (&OsString, &OsString)| {
            Some((name.to_str()?.to_owned(), value.to_str()?.to_owned()))
        };
        Ok(Self {
            server: text("HODEI_SERVER").transpose()?,
            token: text("HODEI_TOKEN").transpose()?.map(SecretString::new),
            ca_file: set("HODEI_CA_FILE").map(PathBuf::from),
            namespace: text("HODEI_NAMESPACE").transpose()?.unwrap_or_default(),
            data_dir: data_dir(set("HODEI_DATA_DIR").map(PathBuf::from)),
            uid: rustix::process::geteuid().as_raw(),
            log: set("HODEI_LOG").is_some(),
            terminal: Terminal {
                stdout: std::io::stdout().is_terminal(),
                stderr: std::io::stderr().is_terminal(),
                colour: set("NO_COLOR").is_none() && set("TERM").as_deref() != Some(OsStr::new("dumb")),
            },
            variables: all.iter().filter_map(pair).collect(),
        })
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

/// The value of a token is not shown.
fn no_text(name: &str, value: &OsStr) -> anyhow::Error {
    match name {
        "HODEI_TOKEN" => anyhow!("HODEI_TOKEN is not UTF-8, so it is no token"),
        _ => anyhow!("{name}: `{}` is not UTF-8", value.to_string_lossy()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;

    #[test]
    fn a_variable_that_is_no_text_is_named() {
        for name in ["HODEI_SERVER", "HODEI_TOKEN", "HODEI_NAMESPACE"] {
            let all = BTreeMap::from([(OsString::from(name), OsString::from_vec(b"a\xffb".to_vec()))]);
            let error = Environment::of(all, Option::unwrap_or_default).expect_err("no text");
            let said = error.to_string();
            assert!(said.starts_with(name) && said.contains("not UTF-8"), "{said}");
            assert_eq!(said.contains("a\u{fffd}b"), name != "HODEI_TOKEN", "{said}");
        }
        let all = BTreeMap::from([
            ("HODEI_SERVER".into(), OsString::new()),
            ("OTHER".into(), OsString::from_vec(vec![0xff])),
        ]);
        let environment = Environment::of(all, Option::unwrap_or_default).expect("empty is unset");
        assert_eq!(environment.server, None);
    }

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
