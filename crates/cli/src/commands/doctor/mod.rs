//! `hodei doctor`: what of this machine a platform needs, whether it is there, and what to do where it is not.
//!
//! What can be tried is tried: a job runs on a server of its own, files are synced, addresses are bound. The rest is
//! read from the kernel. Nothing stays behind.

mod kernel;
mod machine;
mod trial;

use anyhow::Result;
use serde::Serialize;

use crate::args::machines::DoctorArgs;
use crate::environment::Environment;
use crate::output::{Shown, note, print};
use crate::platform::{self, Flags, Mode};

/// How something stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum Standing {
    /// As it should be.
    Ok,
    /// A platform works, but not as well as it could.
    Warning,
    /// A platform does not work without it.
    Missing,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Check {
    name: &'static str,
    standing: Standing,
    found: String,
    /// What to do about it.
    advice: Option<String>,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self {
            name,
            standing: Standing::Ok,
            found: found.into(),
            advice: None,
        }
    }

    fn warning(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            standing: Standing::Warning,
            advice: Some(advice.into()),
            ..Self::ok(name, found)
        }
    }

    fn missing(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            standing: Standing::Missing,
            ..Self::warning(name, found, advice)
        }
    }
}

/// All that was looked at.
#[derive(Debug, Serialize)]
struct Report {
    /// Whether nothing that is needed is missing.
    ok: bool,
    checks: Vec<Check>,
}

impl Report {
    fn new(checks: Vec<Check>) -> Self {
        Self {
            ok: checks.iter().all(|check| check.standing < Standing::Missing),
            checks,
        }
    }

    fn count(&self, standing: Standing) -> usize {
        self.checks
            .iter()
            .filter(|check| check.standing == standing)
            .count()
    }
}

impl Shown for Report {
    fn table(&self, _wide: bool, _now: jiff::Timestamp) -> String {
        let mut lines = Vec::new();
        for check in &self.checks {
            let mark = match check.standing {
                Standing::Ok => "ok     ",
                Standing::Warning => "warning",
                Standing::Missing => "MISSING",
            };
            lines.push(format!("{mark}  {:<16}  {}", check.name, check.found));
            lines.extend(check.advice.iter().map(|advice| format!("{:27}→ {advice}", "")));
        }
        lines.join("\n")
    }

    fn names(&self) -> Vec<String> {
        let worse = self.checks.iter().filter(|check| check.standing > Standing::Ok);
        worse.map(|check| check.name.to_owned()).collect()
    }
}

/// Looks at everything; 0 if nothing that is needed is missing, else 1.
///
/// # Errors
/// If the report can not be written.
pub(crate) async fn run(args: DoctorArgs, environment: &Environment) -> Result<u8> {
    let flags = Flags {
        data_dir: args.data_dir,
        ..Flags::default()
    };
    let mut checks = vec![kernel::release(), kernel::pidfd(), kernel::user_namespaces()];
    checks.extend([kernel::cgroups(), kernel::seccomp(), kernel::landlock()]);
    checks.extend([machine::clock(), machine::open_files(), machine::processes()]);
    checks.push(machine::size());
    match platform::settings(Mode::Dev, &flags) {
        Ok(settings) => {
            checks.push(Check::ok(
                "settings",
                format!("data folder {}", settings.data_dir.display()),
            ));
            checks.extend([
                machine::room(&settings.data_dir),
                machine::sync(&settings.data_dir),
            ]);
            let served = machine::is_served(&settings.data_dir);
            checks.push(machine::address("client address", settings.listen, served));
            checks.push(machine::address("worker address", settings.worker_listen, served));
        }
        Err(error) => checks.push(Check::missing(
            "settings",
            format!("{error:#}"),
            "correct what it names",
        )),
    }
    checks.extend(trial::run(environment).await);
    let report = Report::new(checks);
    print(args.output.format, &report)?;
    match (report.count(Standing::Missing), report.count(Standing::Warning)) {
        (0, 0) => note("all good"),
        (0, warnings) => note(&format!("works, with {warnings} to improve")),
        (missing, _) => note(&format!("{missing} that a platform needs is missing")),
    }
    Ok(u8::from(!report.ok))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_fails() {
        let good = Check::ok("kernel", "6.18");
        let slow = Check::warning("fsync", "80 ms", "use another disk");
        let none = Check::missing("disk", "full", "make room");
        assert!(Report::new(vec![good.clone(), slow.clone()]).ok);
        let report = Report::new(vec![good, slow, none]);
        assert!(!report.ok);
        assert_eq!(report.names(), ["fsync", "disk"]);
        insta::assert_snapshot!(report.table(false, jiff::Timestamp::UNIX_EPOCH));
    }
}
