//! The pipes of a process: two that are read fairly, or one for both streams, and one for its input if it has any.

use std::io;
use std::os::fd::OwnedFd;

use async_trait::async_trait;
use hodei_shared::offsets::Stream;
use hodei_shared::ports::Clock;
use hodei_worker_application::ports::{Chunk, InputSink, OutputSource};
use hodei_worker_domain::assignment::Assignment;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::pipe::{Receiver, Sender};

use crate::system::SystemClock;

const READ_BYTES: usize = 64 << 10;

/// Reads what is there from either pipe; under load they take turns.
pub(super) struct Pipes {
    ends: [(Stream, Option<Receiver>); 2],
    buffer: Vec<u8>,
}

/// The process's own ends of its pipes.
pub(super) struct Ends {
    /// What it reads; `None`: /dev/null.
    pub(super) stdin: Option<OwnedFd>,
    pub(super) stdout: OwnedFd,
    /// `None`: the same as standard output.
    pub(super) stderr: Option<OwnedFd>,
}

/// All pipes of a process that is about to start.
pub(super) struct Opened {
    pub(super) output: Pipes,
    pub(super) input: Option<Box<dyn InputSink>>,
    pub(super) ends: Ends,
}

impl Opened {
    /// Makes the pipes that `assignment` needs. Only inside a tokio runtime. Done before there is a process, so that
    /// none is left without a reader.
    ///
    /// # Errors
    /// [`io::Error`] if they can not be made or watched.
    pub(super) fn new(assignment: &Assignment) -> io::Result<Self> {
        let (out, stdout) = pipe_with(PipeFlags::CLOEXEC)?;
        let mut ends = Ends {
            stdin: None,
            stdout,
            stderr: None,
        };
        let out = Receiver::from_owned_fd(out)?;
        let mut err = None;
        if !assignment.merge {
            let (reading, writing) = pipe_with(PipeFlags::CLOEXEC)?;
            err = Some(Receiver::from_owned_fd(reading)?);
            ends.stderr = Some(writing);
        }
        let mut input: Option<Box<dyn InputSink>> = None;
        if assignment.input {
            let (reading, writing) = pipe_with(PipeFlags::CLOEXEC)?;
            input = Some(Box::new(Feed(Sender::from_owned_fd(writing)?)));
            ends.stdin = Some(reading);
        }
        let output = Pipes {
            ends: [(Stream::Stdout, Some(out)), (Stream::Stderr, err)],
            buffer: vec![0; READ_BYTES],
        };
        Ok(Self { output, input, ends })
    }
}

/// The writing end of a standard input.
struct Feed(Sender);

#[async_trait]
impl InputSink for Feed {
    async fn write(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).await.is_ok()
    }
}

#[async_trait]
impl OutputSource for Pipes {
    async fn read(&mut self) -> Option<Chunk> {
        loop {
            let [first, second] = &self.ends;
            let turn = match (&first.1, &second.1) {
                (None, None) => return None,
                (Some(a), None) => ready(a, 0).await,
                (None, Some(b)) => ready(b, 1).await,
                (Some(a), Some(b)) => tokio::select! {
                    biased;
                    turn = ready(a, 0) => turn,
                    turn = ready(b, 1) => turn,
                },
            };
            let (stream, end) = &mut self.ends[turn];
            let Some(pipe) = end else { continue };
            match pipe.try_read(&mut self.buffer) {
                Ok(0) => *end = None,
                Ok(len) => {
                    let chunk = Chunk {
                        stream: *stream,
                        bytes: self.buffer[..len].to_vec(),
                        at_ms: SystemClock.now_ms(),
                    };
                    // The other one is looked at first next time.
                    if turn == 0 {
                        self.ends.swap(0, 1);
                    }
                    return Some(chunk);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    tracing::warn!(%error, "a pipe can not be read");
                    *end = None;
                }
            }
        }
    }
}

async fn ready(pipe: &Receiver, turn: usize) -> usize {
    // An error shows when it is read.
    let _error = pipe.readable().await;
    turn
}
