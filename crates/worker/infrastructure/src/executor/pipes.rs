//! The two pipes of a process, read fairly.

use std::io;
use std::os::fd::OwnedFd;

use async_trait::async_trait;
use hodei_shared::offsets::Stream;
use hodei_shared::ports::Clock;
use hodei_worker_application::ports::{Chunk, OutputSource};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::net::unix::pipe::Receiver;

use crate::system::SystemClock;

const READ_BYTES: usize = 64 << 10;

/// Reads what is there from either pipe; under load they take turns.
pub(super) struct Pipes {
    ends: [(Stream, Option<Receiver>); 2],
    buffer: Vec<u8>,
}

impl Pipes {
    /// Makes both pipes: what reads them, and the writing ends of standard output and error. Only inside a tokio
    /// runtime. Done before there is a process, so that none is left without a reader.
    ///
    /// # Errors
    /// [`io::Error`] if they can not be made or watched.
    pub(super) fn open() -> io::Result<(Self, [OwnedFd; 2])> {
        let (stdout, out) = pipe_with(PipeFlags::CLOEXEC)?;
        let (stderr, err) = pipe_with(PipeFlags::CLOEXEC)?;
        let stdout = Receiver::from_owned_fd(stdout)?;
        let stderr = Receiver::from_owned_fd(stderr)?;
        let pipes = Self {
            ends: [(Stream::Stdout, Some(stdout)), (Stream::Stderr, Some(stderr))],
            buffer: vec![0; READ_BYTES],
        };
        Ok((pipes, [out, err]))
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
