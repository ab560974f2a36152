//! How jobs and attempts end: the words that are recorded and shown, and what a worker reports of a process.
//!
//! Nothing here decides anything; which end follows from which event is [`super::state`].

use serde::{Deserialize, Serialize};

/// How an attempt or a job ended, for programs: a stable word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The process ended by itself.
    ExitCode,
    /// A signal that Hodei did not send ended the process.
    Signal,
    /// The time-out was reached.
    Timeout,
    /// Somebody cancelled the job.
    Cancelled,
    /// The worker was lost.
    Lost,
    /// The process could not be started.
    StartFailed,
    /// No worker could be made for the job, again and again.
    ProviderError,
    /// The process ended by itself, and a part of its output could not be stored in time.
    OutputIncomplete,
}

impl Reason {
    const ALL: [(Self, &'static str); 8] = [
        (Self::ExitCode, "exit_code"),
        (Self::Signal, "signal"),
        (Self::Timeout, "timeout"),
        (Self::Cancelled, "cancelled"),
        (Self::Lost, "lost"),
        (Self::StartFailed, "start_failed"),
        (Self::ProviderError, "provider_error"),
        (Self::OutputIncomplete, "output_incomplete"),
    ];

    /// The word itself.
    pub fn as_str(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(reason, _)| *reason == self)
            .map_or("", |(_, word)| word)
    }

    /// The reason with this word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(_, w)| *w == word)
            .map(|(reason, _)| *reason)
    }
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Its process ended with code 0.
    Succeeded,
    /// Anything else that is not one of the others.
    Failed,
    /// Cancelled before it ended by itself.
    Cancelled,
    /// Its last attempt reached the time-out.
    TimedOut,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptOutcome {
    /// Its process ended with code 0.
    Succeeded,
    /// Its process ended otherwise, or could not be started.
    Failed,
    /// It reached its time-out.
    TimedOut,
    /// It was stopped on request.
    Cancelled,
    /// Its worker was lost, or it never started.
    Lost,
}

/// The end of an attempt or job, as it is recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// The process's exit code; 126 or 127 if it could not be started.
    pub exit_code: Option<i32>,
    /// The signal that ended the process.
    pub signal: Option<i32>,
    /// Why, for programs.
    pub reason: Reason,
    /// Why, for people: one line.
    pub message: String,
}

impl End {
    /// An end without a process status.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            exit_code: None,
            signal: None,
            reason,
            message: message.into(),
        }
    }
}

/// What a worker reports of a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerResult {
    /// It ended by itself.
    Exited(i32),
    /// A signal that Hodei did not send ended it.
    Signalled(i32),
    /// Stopped at its time-out.
    TimedOut,
    /// Stopped on request.
    Cancelled,
    /// It could not be started; the code is 126 or 127 where one fits.
    StartFailed {
        /// 126, 127 or none.
        exit_code: Option<i32>,
        /// Which file and why.
        message: String,
    },
    /// The worker stopped it because its lease was about to run out, or because it was told to end itself.
    LeaseLost,
}

impl WorkerResult {
    /// How the attempt counts.
    pub fn outcome(&self) -> AttemptOutcome {
        match self {
            Self::Exited(0) => AttemptOutcome::Succeeded,
            Self::Exited(_) | Self::Signalled(_) | Self::StartFailed { .. } => AttemptOutcome::Failed,
            Self::TimedOut => AttemptOutcome::TimedOut,
            Self::Cancelled => AttemptOutcome::Cancelled,
            Self::LeaseLost => AttemptOutcome::Lost,
        }
    }

    /// What is recorded.
    pub fn end(&self) -> End {
        match self {
            Self::Exited(code) => End {
                exit_code: Some(*code),
                ..End::new(
                    Reason::ExitCode,
                    format!("the process ended with exit code {code}"),
                )
            },
            Self::Signalled(signal) => End {
                signal: Some(*signal),
                ..End::new(Reason::Signal, format!("signal {signal} ended the process"))
            },
            Self::TimedOut => End::new(Reason::Timeout, "the time-out was reached"),
            Self::Cancelled => End::new(Reason::Cancelled, "stopped on request"),
            Self::StartFailed { exit_code, message } => End {
                exit_code: *exit_code,
                ..End::new(Reason::StartFailed, message.clone())
            },
            Self::LeaseLost => End::new(
                Reason::Lost,
                "the worker stopped the process, because it lost contact or was told to end",
            ),
        }
    }
}
