//! When an attempt is repeated, and how long that takes.

use std::str::FromStr;
use std::time::Duration;

use hodei_shared::Invalid;
use serde::{Deserialize, Serialize};

/// How often an attempt is repeated without being counted, if no worker registered or the claim was never sent.
pub const MAX_UNCOUNTED: u32 = 5;

/// A kind of end that can be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetryOn {
    /// The process ended with another code than 0, by a signal, or could not be started.
    Exit,
    /// The worker was lost.
    Lost,
    /// The process was killed for want of memory.
    Oom,
    /// The provider failed.
    Provider,
}

impl RetryOn {
    const ALL: [(Self, &'static str); 4] = [
        (Self::Exit, "exit"),
        (Self::Lost, "lost"),
        (Self::Oom, "oom"),
        (Self::Provider, "provider"),
    ];

    /// The word for it, as in `--retry-on`.
    pub fn as_str(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(kind, _)| *kind == self)
            .map_or("", |(_, word)| word)
    }
}

impl FromStr for RetryOn {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let found = Self::ALL.iter().find(|(_, word)| *word == text);
        found
            .map(|(kind, _)| *kind)
            .ok_or_else(|| Invalid::new("retry-on", text, "is none of exit, lost, oom and provider"))
    }
}

/// How often and after which ends an attempt is repeated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryPolicy {
    retries: u32,
    on: Vec<RetryOn>,
}

impl RetryPolicy {
    /// Repeats up to `retries` times after the ends in `on`; an empty `on` means all of them.
    pub fn new(retries: u32, on: &[RetryOn]) -> Self {
        let mut on = if on.is_empty() {
            RetryOn::ALL.map(|(kind, _)| kind).to_vec()
        } else {
            on.to_vec()
        };
        on.sort();
        on.dedup();
        Self { retries, on }
    }

    /// How often an attempt is repeated at most.
    pub fn retries(&self) -> u32 {
        self.retries
    }

    /// The ends that are repeated, in order.
    pub fn on(&self) -> &[RetryOn] {
        &self.on
    }

    /// Whether an attempt that ended as `kind` is repeated, after `done` repetitions.
    pub fn repeats(&self, kind: RetryOn, done: u32) -> bool {
        done < self.retries && self.on.contains(&kind)
    }
}

/// The pause before repetition number `repetition` (1, 2, …): one second, doubled up to five minutes.
pub fn back_off(repetition: u32) -> Duration {
    let doublings = repetition.saturating_sub(1).min(9);
    Duration::from_secs(1 << doublings).min(Duration::from_secs(300))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_doubles_up_to_five_minutes() {
        let seconds: Vec<u64> = (1..=11).map(|n| back_off(n).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
    }

    #[test]
    fn only_named_ends_are_repeated() {
        let policy = RetryPolicy::new(2, &[RetryOn::Lost]);
        assert!(policy.repeats(RetryOn::Lost, 1) && !policy.repeats(RetryOn::Lost, 2));
        assert!(!policy.repeats(RetryOn::Exit, 0));
        assert!(RetryPolicy::new(1, &[]).repeats(RetryOn::Oom, 0));
    }
}
