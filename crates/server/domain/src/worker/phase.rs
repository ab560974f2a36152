//! The life of a worker, from the intent to make it to the proof that it is gone.

use serde::{Deserialize, Serialize};

/// Where a worker stands. It only moves down this list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerPhase {
    /// An intent: recorded, its machine is not yet asked for.
    Planned,
    /// Its machine is asked for; it has not registered.
    Starting,
    /// Registered; takes jobs while it is connected.
    Ready,
    /// Takes no more jobs; ends when it has none.
    Draining,
    /// Its machine is gone, or was never made.
    Gone,
}

/// What happens to a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerEvent {
    /// Its machine is being asked for.
    Creating,
    /// It redeemed its password.
    Registered,
    /// It takes no more jobs.
    Drain,
    /// Its machine is gone.
    Gone,
}

impl WorkerPhase {
    /// Every phase in order.
    pub const ALL: [Self; 5] = [
        Self::Planned,
        Self::Starting,
        Self::Ready,
        Self::Draining,
        Self::Gone,
    ];

    /// The phase after `event`; `None` if the event changes nothing.
    pub fn apply(self, event: WorkerEvent) -> Option<Self> {
        match (self, event) {
            (Self::Planned, WorkerEvent::Creating) => Some(Self::Starting),
            (Self::Starting, WorkerEvent::Registered) => Some(Self::Ready),
            (Self::Planned | Self::Starting | Self::Ready, WorkerEvent::Drain) => Some(Self::Draining),
            (Self::Planned | Self::Starting | Self::Ready | Self::Draining, WorkerEvent::Gone) => {
                Some(Self::Gone)
            }
            _ => None,
        }
    }

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Gone => "gone",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_phase_answers_every_event() {
        use WorkerPhase::{Draining, Gone, Planned, Ready, Starting};
        let events = [
            WorkerEvent::Creating,
            WorkerEvent::Registered,
            WorkerEvent::Drain,
            WorkerEvent::Gone,
        ];
        let table = [
            (Planned, [Some(Starting), None, Some(Draining), Some(Gone)]),
            (Starting, [None, Some(Ready), Some(Draining), Some(Gone)]),
            (Ready, [None, None, Some(Draining), Some(Gone)]),
            (Draining, [None, None, None, Some(Gone)]),
            (Gone, [None, None, None, None]),
        ];
        for (phase, wanted) in table {
            for (event, want) in events.into_iter().zip(wanted) {
                assert_eq!(phase.apply(event), want, "{phase:?} {event:?}");
                assert!(want.is_none_or(|next| next > phase), "a worker moves on only");
            }
        }
    }
}
