//! What a person asks to be run. Parsed once at the door; a [`JobSpec`] that exists is valid and never changes.

use std::collections::BTreeMap;
use std::time::Duration;

use hodei_shared::constraint::Constraint;
use hodei_shared::ids::ProviderId;
use hodei_shared::labels::Labels;
use hodei_shared::resources::Resources;
use hodei_shared::{Invalid, text};
use serde::{Deserialize, Serialize};

use super::retry::{RetryOn, RetryPolicy};
use crate::provider::Isolation;

/// Time from TERM to KILL when nothing else is asked for.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(10);
/// How long a silent worker keeps a job when nothing else is asked for.
pub const DEFAULT_LOST_AFTER: Duration = Duration::from_secs(300);
/// The most arguments, environment variables and constraints.
const MAX_ITEMS: usize = 4_096;
/// One argument or variable must fit what the kernel passes on (MAX_ARG_STRLEN, execve(2)).
const MAX_ARGUMENT_BYTES: usize = 128 * 1024 - 1;

/// What runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// A program and its arguments, passed on unchanged; never empty.
    Argv(Vec<String>),
    /// A text that is written to a file and run by `interpreter`.
    Script {
        /// The text.
        text: String,
        /// Program and arguments; the file's name is appended.
        interpreter: Vec<String>,
    },
}

/// What the process finds on its standard input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stdin {
    /// Nothing: /dev/null.
    #[default]
    Null,
    /// The job's input, while it comes.
    Stream,
    /// The job's input; the job is held until all of it is stored.
    Whole,
}

impl Stdin {
    /// Whether the job takes input at all.
    pub fn is_fed(self) -> bool {
        self != Self::Null
    }

    fn is_null(&self) -> bool {
        *self == Self::Null
    }
}

/// A validated job specification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSpec {
    /// One line for people; may be empty.
    pub name: String,
    /// What runs.
    pub command: Command,
    /// The job's environment beside what Hodei sets.
    pub env: BTreeMap<String, String>,
    /// Absolute folder to run in; `None`: a private one per attempt.
    pub workdir: Option<String>,
    /// What it needs.
    pub resources: Resources,
    /// Limit for each attempt from the start of its process.
    pub timeout: Option<Duration>,
    /// Time from TERM to KILL.
    pub grace: Duration,
    /// When it is repeated.
    pub retry: RetryPolicy,
    /// For people and filters.
    pub labels: Labels,
    /// Conditions on provider labels.
    pub constraints: Vec<Constraint>,
    /// The only provider to use.
    pub provider: Option<ProviderId>,
    /// The least isolation.
    pub isolation: Option<Isolation>,
    /// Higher goes first within the namespace.
    pub priority: i32,
    /// How long a silent worker keeps the job.
    pub lost_after: Duration,
    /// The image to run in.
    pub image: Option<String>,
    /// Its standard input.
    #[serde(default, skip_serializing_if = "Stdin::is_null")]
    pub stdin: Stdin,
    /// Both streams go through one pipe, as stdout.
    #[serde(default, skip_serializing_if = "is_false")]
    pub merge: bool,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// A job specification as it came in. Empty and `None` mean "the default".
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpecInput {
    /// See [`JobSpec::name`].
    pub name: String,
    /// Program and arguments; empty if `script` is given.
    pub command: Vec<String>,
    /// The script's text.
    pub script: String,
    /// What runs the script; empty: `/bin/sh`.
    pub interpreter: Vec<String>,
    /// See [`JobSpec::env`].
    pub env: BTreeMap<String, String>,
    /// See [`JobSpec::workdir`].
    pub workdir: String,
    /// Thousandths of a processor.
    pub cpu_millis: Option<u64>,
    /// Bytes.
    pub memory_bytes: Option<u64>,
    /// See [`JobSpec::timeout`].
    pub timeout: Option<Duration>,
    /// See [`JobSpec::grace`].
    pub grace: Option<Duration>,
    /// How often a failed attempt is repeated.
    pub retries: u32,
    /// Which ends are repeated; empty: all.
    pub retry_on: Vec<String>,
    /// See [`JobSpec::labels`].
    pub labels: BTreeMap<String, String>,
    /// See [`JobSpec::constraints`].
    pub constraints: Vec<String>,
    /// See [`JobSpec::provider`].
    pub provider: String,
    /// See [`JobSpec::isolation`].
    pub isolation: String,
    /// See [`JobSpec::priority`].
    pub priority: i32,
    /// See [`JobSpec::lost_after`].
    pub lost_after: Option<Duration>,
    /// See [`JobSpec::image`].
    pub image: String,
    /// See [`JobSpec::stdin`].
    pub stdin: Stdin,
    /// See [`JobSpec::merge`].
    pub merge: bool,
}

impl JobSpec {
    /// Validates a specification and fills in the defaults.
    ///
    /// # Errors
    /// Every rule that is broken, each with field, value and rule.
    pub fn new(input: SpecInput) -> Result<Self, Vec<Invalid>> {
        let mut broken = Broken(Vec::new());
        let name = broken.check(name(input.name));
        let command = broken.check(command(input.command, input.script, input.interpreter));
        let env = broken.check(environment(input.env));
        let workdir = broken.check(workdir(input.workdir));
        let resources = broken.check(resources(input.cpu_millis, input.memory_bytes));
        let timeout = broken.check(non_zero("timeout", input.timeout));
        let retry = broken.check(retry(input.retries, &input.retry_on));
        let labels = broken.check(Labels::new(input.labels));
        let constraints = broken.check(constraints(&input.constraints));
        let provider = broken.check(optional(input.provider, |text| ProviderId::new(text)));
        let isolation = broken.check(optional(input.isolation, |text| text.parse::<Isolation>()));
        let priority = broken.check(priority(input.priority));
        let lost_after = broken.check(lost_after(input.lost_after));
        let grace = broken.check(grace(input.grace));
        let image = broken.check(optional(input.image, image));
        let (stdin, merge) = (input.stdin, input.merge);
        let spec = (|| {
            Some(Self {
                name: name?,
                command: command?,
                env: env?,
                workdir: workdir?,
                resources: resources?,
                timeout: timeout?,
                grace: grace?,
                retry: retry?,
                labels: labels?,
                constraints: constraints?,
                provider: provider?,
                isolation: isolation?,
                priority: priority?,
                lost_after: lost_after?,
                image: image?,
                stdin,
                merge,
            })
        })();
        spec.ok_or(broken.0)
    }
}

/// Collects what is broken, so that a person sees all of it at once.
struct Broken(Vec<Invalid>);

impl Broken {
    fn check<T>(&mut self, result: Result<T, Invalid>) -> Option<T> {
        result.map_err(|invalid| self.0.push(invalid)).ok()
    }
}

fn name(value: String) -> Result<String, Invalid> {
    if value.len() > text::MAX_LINE_BYTES || value.chars().any(char::is_control) {
        return Err(Invalid::new(
            "name",
            value,
            "is not one line of at most 1 KiB without control characters",
        ));
    }
    if !value.is_empty() && value.trim().is_empty() {
        return Err(Invalid::new("name", value, "is blank; leave it out for no name"));
    }
    Ok(value)
}

fn image(value: &str) -> Result<String, Invalid> {
    if value.len() > text::MAX_LINE_BYTES || value.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(Invalid::new(
            "image",
            value,
            "is not an image: at most 1 KiB without spaces and control characters",
        ));
    }
    Ok(value.to_owned())
}

fn optional<T>(value: String, parse: impl Fn(&str) -> Result<T, Invalid>) -> Result<Option<T>, Invalid> {
    if value.is_empty() {
        Ok(None)
    } else {
        parse(&value).map(Some)
    }
}

fn command(argv: Vec<String>, script: String, interpreter: Vec<String>) -> Result<Command, Invalid> {
    let rule = |rule: &str| Err(Invalid::new("command", argv.join(" "), rule));
    if argv.is_empty() == script.is_empty() {
        return rule("is not one of the two: give a command or a script");
    }
    let words = if argv.is_empty() { &interpreter } else { &argv };
    if words.len() > MAX_ITEMS {
        return rule("has more than 4096 arguments");
    }
    if words
        .iter()
        .any(|word| word.contains('\0') || word.len() > MAX_ARGUMENT_BYTES)
    {
        return rule("has an argument with a NUL byte or longer than 128 KiB");
    }
    if words.first().is_some_and(String::is_empty) {
        return rule("has an empty program name");
    }
    if !argv.is_empty() {
        return Ok(Command::Argv(argv));
    }
    let interpreter = if interpreter.is_empty() {
        vec!["/bin/sh".to_owned()]
    } else {
        interpreter
    };
    Ok(Command::Script {
        text: script,
        interpreter,
    })
}

fn environment(env: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Invalid> {
    if env.len() > MAX_ITEMS {
        return Err(Invalid::new(
            "env",
            env.len().to_string(),
            "variables are too many; 4096 are allowed",
        ));
    }
    for (key, value) in &env {
        if key.is_empty() || key.contains(['=', '\0']) || key.len() > 255 {
            return Err(Invalid::new(
                "env",
                key,
                "is not a variable name of 1 to 255 bytes without `=`",
            ));
        }
        if key.starts_with("HODEI_") {
            return Err(Invalid::new(
                "env",
                key,
                "is refused: names beginning with HODEI_ are set by Hodei",
            ));
        }
        if value.contains('\0') || value.len() > MAX_ARGUMENT_BYTES {
            return Err(Invalid::new(
                "env",
                key,
                "has a value with a NUL byte or longer than 128 KiB",
            ));
        }
    }
    Ok(env)
}

fn workdir(value: String) -> Result<Option<String>, Invalid> {
    if value.is_empty() {
        return Ok(None);
    }
    if !value.starts_with('/') || value.contains('\0') || value.len() > 4_095 {
        return Err(Invalid::new(
            "workdir",
            value,
            "is not an absolute path of at most 4095 bytes",
        ));
    }
    Ok(Some(value))
}

fn resources(cpu_millis: Option<u64>, memory_bytes: Option<u64>) -> Result<Resources, Invalid> {
    let cpu_millis = cpu_millis.unwrap_or(Resources::JOB_DEFAULT.cpu_millis);
    let memory_bytes = memory_bytes.unwrap_or(Resources::JOB_DEFAULT.memory_bytes);
    if !(1..=1_000_000).contains(&cpu_millis) {
        let rule = "thousandths of a processor are out of range; 1 to 1000000 are allowed";
        return Err(Invalid::new("cpus", cpu_millis.to_string(), rule));
    }
    if !(1..=1 << 50).contains(&memory_bytes) {
        return Err(Invalid::new(
            "memory",
            memory_bytes.to_string(),
            "bytes are out of range; 1 to 2^50 are allowed",
        ));
    }
    Ok(Resources {
        cpu_millis,
        memory_bytes,
    })
}

fn non_zero(field: &'static str, value: Option<Duration>) -> Result<Option<Duration>, Invalid> {
    match value {
        Some(value) if value.is_zero() => {
            Err(Invalid::new(field, "0", "is no time; leave it out for no limit"))
        }
        Some(value) if value > Duration::from_secs(3_650 * 86_400) => Err(Invalid::new(
            field,
            format!("{}s", value.as_secs()),
            "is longer than ten years",
        )),
        value => Ok(value),
    }
}

fn retry(retries: u32, retry_on: &[String]) -> Result<RetryPolicy, Invalid> {
    if retries > 1_000 {
        return Err(Invalid::new(
            "retries",
            retries.to_string(),
            "is out of range; 0 to 1000 are allowed",
        ));
    }
    let on = retry_on
        .iter()
        .map(|word| word.parse())
        .collect::<Result<Vec<RetryOn>, _>>()?;
    Ok(RetryPolicy::new(retries, &on))
}

fn constraints(sources: &[String]) -> Result<Vec<Constraint>, Invalid> {
    if sources.len() > 64 {
        return Err(Invalid::new(
            "constraint",
            sources.len().to_string(),
            "constraints are too many; 64 are allowed",
        ));
    }
    let mut parsed = sources
        .iter()
        .cloned()
        .map(Constraint::try_from)
        .collect::<Result<Vec<_>, _>>()?;
    parsed.sort();
    parsed.dedup();
    Ok(parsed)
}

fn priority(value: i32) -> Result<i32, Invalid> {
    if (-1_000_000..=1_000_000).contains(&value) {
        Ok(value)
    } else {
        Err(Invalid::new(
            "priority",
            value.to_string(),
            "is out of range; -1000000 to 1000000 are allowed",
        ))
    }
}

fn lost_after(value: Option<Duration>) -> Result<Duration, Invalid> {
    let value = value.unwrap_or(DEFAULT_LOST_AFTER);
    if (Duration::from_secs(60)..=Duration::from_secs(86_400)).contains(&value) {
        Ok(value)
    } else {
        let shown = format!("{}ms", value.as_millis());
        Err(Invalid::new(
            "lost-after",
            shown,
            "is out of range; 1m to 1d are allowed",
        ))
    }
}

fn grace(value: Option<Duration>) -> Result<Duration, Invalid> {
    let value = value.unwrap_or(DEFAULT_GRACE);
    if value <= Duration::from_secs(3_600) {
        Ok(value)
    } else {
        Err(Invalid::new(
            "grace",
            format!("{}s", value.as_secs()),
            "is longer than 1h",
        ))
    }
}

#[cfg(test)]
#[path = "spec_tests.rs"]
mod tests;
