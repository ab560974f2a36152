//! Providers: what they can do and how they are.

use std::fmt;
use std::str::FromStr;

use hodei_shared::Invalid;
use hodei_shared::labels::Labels;
use hodei_shared::resources::Resources;
use serde::{Deserialize, Serialize};

/// How strongly jobs are kept apart, in ascending order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// Processes of the host.
    Process,
    /// Containers that share the host's kernel.
    Container,
    /// Virtual machines with kernels of their own.
    MicroVm,
}

impl Isolation {
    const ALL: [(Self, &'static str); 3] = [
        (Self::Process, "process"),
        (Self::Container, "container"),
        (Self::MicroVm, "microvm"),
    ];

    /// The word for it, as in `--isolation`.
    pub fn as_str(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(level, _)| *level == self)
            .map_or("", |(_, word)| word)
    }
}

impl FromStr for Isolation {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let found = Self::ALL.iter().find(|(_, word)| *word == text);
        found
            .map(|(level, _)| *level)
            .ok_or_else(|| Invalid::new("isolation", text, "is none of process, container and microvm"))
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a provider can hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// `process`, …; the label `kind`.
    pub kind: &'static str,
    /// How its jobs are kept apart.
    pub isolation: Isolation,
    /// Whether it runs jobs in images.
    pub images: bool,
    /// What constraints see: the configured labels and `provider`, `kind`, `arch`, `isolation`.
    pub labels: Labels,
    /// What all its jobs together may use.
    pub capacity: Resources,
    /// How many workers it may have.
    pub max_workers: u32,
    /// How many jobs one worker runs at once.
    pub slots_per_worker: u32,
}

/// How a provider is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Health {
    /// Whether workers can be made there now.
    pub healthy: bool,
    /// Why not, or what should be known: one line for people.
    pub message: String,
}
