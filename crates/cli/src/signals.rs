//! The signals that a person, a terminal or a supervisor sends to a command that waits for a job.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interrupt {
    /// Ctrl-C.
    CtrlC,
    /// SIGTERM.
    Terminate,
    /// The terminal is gone.
    HangUp,
}

impl Interrupt {
    /// Why a job is cancelled because of it.
    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::CtrlC => "Ctrl-C",
            Self::Terminate => "SIGTERM",
            Self::HangUp => "SIGHUP",
        }
    }

    /// What a command ends with because of it.
    pub(crate) const fn status(self) -> u8 {
        match self {
            Self::CtrlC => crate::exit::CANCELLED,
            Self::Terminate => crate::exit::TERMINATED,
            Self::HangUp => crate::exit::HUNG_UP,
        }
    }
}

/// Receives the signals from its creation on; until then they end the process as usual.
pub(crate) struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
    /// `None` where whoever started the command had it ignored, as nohup does.
    hang_up: Option<Signal>,
}

impl Interrupts {
    /// Takes the signals over.
    ///
    /// # Errors
    /// If the system refuses a handler.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: match is_ignored(SignalKind::hangup()) {
                true => None,
                false => Some(signal(SignalKind::hangup())?),
            },
        })
    }

    /// Waits for the next one. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Interrupt {
        let hang_up = async {
            match &mut self.hang_up {
                Some(signal) => signal.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            Some(()) = self.interrupt.recv() => Interrupt::CtrlC,
            Some(()) = self.terminate.recv() => Interrupt::Terminate,
            Some(()) = hang_up => Interrupt::HangUp,
            else => std::future::pending().await,
        }
    }
}

/// Whether this process was started with the signal ignored; no, if the system does not say.
fn is_ignored(kind: SignalKind) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    ignored_in(&status, kind.as_raw_value())
}

fn ignored_in(status: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nohup_is_respected() {
        let status = "Name:\thodei\nSigIgn:\t0000000000001001\nSigCgt:\t0000000000000003\n";
        assert!(ignored_in(status, 1) && ignored_in(status, 13));
        assert!(!ignored_in(status, 2) && !ignored_in("", 1));
    }
}
