//! Where a job's two streams go. Bytes pass unchanged, except that a terminal gets only what is safe for one.

use std::io::{self, Write};

use hodei_jobs::v1;

use super::terminal::Escaper;
use crate::environment::Terminal;

/// A pair of outputs. Every write is flushed before it returns.
pub(crate) struct Sink {
    stdout: Port,
    stderr: Port,
}

struct Port {
    writer: Box<dyn Write + Send>,
    escaper: Option<Escaper>,
    buffer: Vec<u8>,
}

impl Sink {
    /// The process's own outputs; with `raw` also a terminal gets every byte.
    pub(crate) fn of_process(terminal: Terminal, raw: bool) -> Self {
        Self::new(
            (Box::new(io::stdout()), terminal.stdout && !raw),
            (Box::new(io::stderr()), terminal.stderr && !raw),
        )
    }

    /// Any two writers, each with whether it is a terminal that must be protected.
    pub(crate) fn new(stdout: (Box<dyn Write + Send>, bool), stderr: (Box<dyn Write + Send>, bool)) -> Self {
        let port = |(writer, escaped): (Box<dyn Write + Send>, bool)| Port {
            writer,
            escaper: escaped.then(Escaper::default),
            buffer: Vec::new(),
        };
        Self {
            stdout: port(stdout),
            stderr: port(stderr),
        }
    }

    /// Writes bytes of one stream. Blocks as long as the reader does.
    ///
    /// # Errors
    /// What the system says; `BrokenPipe` if nobody reads.
    pub(crate) fn write(&mut self, stream: v1::Stream, bytes: &[u8]) -> io::Result<()> {
        match stream {
            v1::Stream::Stderr => self.stderr.write(bytes),
            v1::Stream::Stdout | v1::Stream::Unspecified => self.stdout.write(bytes),
        }
    }

    /// Writes what an incomplete sequence at the end still holds back.
    ///
    /// # Errors
    /// What the system says; `BrokenPipe` if nobody reads.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.stdout.finish()?;
        self.stderr.finish()
    }
}

impl Port {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.escaper {
            None => self.writer.write_all(bytes)?,
            Some(escaper) => {
                escaper.push(bytes, &mut self.buffer);
                self.writer.write_all(&self.buffer)?;
                self.buffer.clear();
            }
        }
        self.writer.flush()
    }

    fn finish(&mut self) -> io::Result<()> {
        if let Some(escaper) = &mut self.escaper {
            escaper.finish(&mut self.buffer);
            self.writer.write_all(&self.buffer)?;
            self.buffer.clear();
        }
        self.writer.flush()
    }
}
