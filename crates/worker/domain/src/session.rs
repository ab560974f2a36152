//! The machine of the worker's session: which stream counts, which beats are out, and what the lease is counted from.
//!
//! Invariants: only frames of the newest stream are taken, and only after its Welcome; beats are numbered from 1
//! within a stream; the lease's base is the sending of the newest answered beat, or of the Hello that was welcomed
//! (the server has then seen a new session), and never goes back.

use std::collections::BTreeMap;
use std::time::Duration;

use thiserror::Error;

/// A stream to the server; the newest has the highest number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId(pub u64);

/// A beat: ordered over all streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BeatId {
    /// The stream it was sent on.
    pub stream: StreamId,
    /// Its number within the stream; counts from 1.
    pub n: u64,
}

/// Why a frame is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Dropped {
    /// It came on a stream that is not the newest.
    #[error("the frame came on an old stream")]
    OldStream,
    /// The stream has not been welcomed.
    #[error("the frame came before the welcome")]
    NotWelcomed,
    /// It answers a beat that is not out.
    #[error("the answer is to a beat that is not out")]
    UnknownBeat,
    /// The stream was welcomed already.
    #[error("the stream was welcomed already")]
    WelcomedTwice,
}

/// The worker's session.
#[derive(Debug, Clone, Default)]
pub struct Session {
    stream: u64,
    open: bool,
    welcomed: bool,
    hello_sent: Duration,
    last_beat: u64,
    out: BTreeMap<u64, Duration>,
    base: Option<Duration>,
}

impl Session {
    /// A session that has never had a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// A new stream is opened; its Hello is sent at `now`. All older streams are over.
    pub fn open(&mut self, now: Duration) -> StreamId {
        self.stream += 1;
        self.open = true;
        self.welcomed = false;
        self.hello_sent = now;
        self.last_beat = 0;
        self.out.clear();
        StreamId(self.stream)
    }

    /// The stream is broken. An old one: nothing.
    pub fn close(&mut self, stream: StreamId) {
        if stream.0 == self.stream {
            self.open = false;
            self.welcomed = false;
            self.out.clear();
        }
    }

    /// Whether `stream` is the newest and open.
    pub fn is_newest(&self, stream: StreamId) -> bool {
        self.open && stream.0 == self.stream
    }

    /// Whether the newest stream is open and welcomed.
    pub fn is_welcomed(&self) -> bool {
        self.open && self.welcomed
    }

    /// Whether a frame of `stream` counts.
    ///
    /// # Errors
    /// [`Dropped`] if it does not.
    pub fn admits(&self, stream: StreamId) -> Result<(), Dropped> {
        if !self.is_newest(stream) {
            return Err(Dropped::OldStream);
        }
        if !self.welcomed {
            return Err(Dropped::NotWelcomed);
        }
        Ok(())
    }

    /// The server welcomed `stream`.
    ///
    /// # Errors
    /// [`Dropped`] for an old stream or a second Welcome.
    pub fn welcome(&mut self, stream: StreamId) -> Result<(), Dropped> {
        match self.admits(stream) {
            Err(Dropped::NotWelcomed) => {
                self.welcomed = true;
                self.base = self.base.max(Some(self.hello_sent));
                Ok(())
            }
            Ok(()) => Err(Dropped::WelcomedTwice),
            Err(dropped) => Err(dropped),
        }
    }

    /// A beat is sent at `now`; none without a welcomed stream.
    pub fn beat(&mut self, now: Duration) -> Option<BeatId> {
        if !self.is_welcomed() {
            return None;
        }
        self.last_beat += 1;
        self.out.insert(self.last_beat, now);
        self.last_beat()
    }

    /// The last beat that was sent, on any stream; none before the first stream.
    pub fn last_beat(&self) -> Option<BeatId> {
        (self.stream > 0).then_some(BeatId {
            stream: StreamId(self.stream),
            n: self.last_beat,
        })
    }

    /// The server answered beat `n` on `stream`. Answers beats before it too.
    ///
    /// # Errors
    /// [`Dropped`] for an old stream or a beat that is not out.
    pub fn answered(&mut self, stream: StreamId, n: u64) -> Result<BeatId, Dropped> {
        self.admits(stream)?;
        let sent = *self.out.get(&n).ok_or(Dropped::UnknownBeat)?;
        self.out = self.out.split_off(&(n + 1));
        self.base = self.base.max(Some(sent));
        Ok(BeatId { stream, n })
    }

    /// What the lease of every attempt is counted from; none before the first Welcome.
    pub fn lease_base(&self) -> Option<Duration> {
        self.base
    }

    /// When the oldest beat without an answer was sent, or the Hello without a Welcome.
    pub fn waiting_since(&self) -> Option<Duration> {
        if self.open && !self.welcomed {
            return Some(self.hello_sent);
        }
        self.out.values().next().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn only_the_newest_stream_counts() {
        let mut session = Session::new();
        assert_eq!(session.beat(s(1)), None);
        let old = session.open(s(1));
        assert_eq!(session.admits(old), Err(Dropped::NotWelcomed));
        assert_eq!(session.welcome(old), Ok(()));
        assert_eq!(session.welcome(old), Err(Dropped::WelcomedTwice));
        let beat = session.beat(s(2)).expect("welcomed");
        assert_eq!((beat.stream, beat.n), (old, 1));
        let new = session.open(s(3));
        assert_eq!(session.answered(old, 1), Err(Dropped::OldStream));
        assert_eq!(session.welcome(old), Err(Dropped::OldStream));
        session.close(old);
        assert_eq!(session.welcome(new), Ok(()));
        let next = session.beat(s(4)).expect("welcomed");
        assert_eq!(next.n, 1);
        assert!(next > beat);
        session.close(new);
        assert_eq!(session.admits(new), Err(Dropped::OldStream));
        assert_eq!(session.beat(s(5)), None);
    }

    #[test]
    fn the_lease_counts_from_the_sending_of_the_last_answered_beat() {
        let mut session = Session::new();
        let stream = session.open(s(10));
        assert_eq!(session.lease_base(), None);
        assert_eq!(session.waiting_since(), Some(s(10)));
        session.welcome(stream).expect("first");
        assert_eq!(session.lease_base(), Some(s(10)));
        for at in [20, 30, 40] {
            session.beat(s(at)).expect("welcomed");
        }
        assert_eq!(session.waiting_since(), Some(s(20)));
        assert_eq!(session.answered(stream, 9), Err(Dropped::UnknownBeat));
        session.answered(stream, 2).expect("out");
        assert_eq!(session.lease_base(), Some(s(30)));
        assert_eq!(session.answered(stream, 1), Err(Dropped::UnknownBeat));
        assert_eq!(session.waiting_since(), Some(s(40)));
        session.open(s(50));
        assert_eq!(
            session.lease_base(),
            Some(s(30)),
            "an unwelcomed stream renews nothing"
        );
    }
}
