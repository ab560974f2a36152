//! What the worker is asked to run: its own small view of a job, parsed once where the frame enters.

use std::collections::BTreeMap;
use std::time::Duration;

use hodei_shared::ids::{AttemptKey, Namespace};

/// How a job's process is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Program and arguments, passed on unchanged; never a shell line. Not empty.
    Argv(Vec<String>),
    /// Text that is written to a file and run as `interpreter… file`.
    Script {
        /// The text of the script.
        text: String,
        /// Program and arguments that run it. Not empty.
        interpreter: Vec<String>,
    },
}

/// One attempt of one job, as this worker has to run it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The claim that this is for: what results and output carry.
    pub key: AttemptKey,
    /// The process.
    pub command: Command,
    /// What the job adds to its environment, or replaces in it.
    pub env: BTreeMap<String, String>,
    /// Absolute folder to run in; none: a private empty folder.
    pub workdir: Option<String>,
    /// Time-out from the start of the process.
    pub timeout: Option<Duration>,
    /// Time from TERM to KILL.
    pub grace: Duration,
    /// How long the server waits for a silent worker before it gives the attempt away.
    pub lost_after: Duration,
    /// The job's namespace.
    pub namespace: Namespace,
    /// The attempt's number; counts from 1.
    pub attempt: u32,
    /// Whether the attempt would be repeated elsewhere if it were lost.
    pub repeatable: bool,
    /// Whether its standard input is the job's input; else it is /dev/null.
    pub input: bool,
    /// Whether both output streams go through one pipe, as stdout.
    pub merge: bool,
}

impl Assignment {
    /// An attempt of `command` with the defaults of a job that names nothing.
    pub fn new(key: AttemptKey, command: Command) -> Self {
        Self {
            key,
            command,
            env: BTreeMap::new(),
            workdir: None,
            timeout: None,
            grace: Duration::from_secs(10),
            lost_after: Duration::from_secs(300),
            namespace: Namespace::default_namespace(),
            attempt: 1,
            repeatable: false,
            input: false,
            merge: false,
        }
    }
}
