//! Where a job's two streams go. Bytes pass unchanged, except that a terminal gets only what is safe for one, and
//! that lines begin with their time where that is asked for.

use std::io::{self, Write};

use hodei_jobs::{v1, view};

use super::terminal::Escaper;
use crate::environment::Terminal;

/// A pair of outputs. Every write is flushed before it returns.
pub(crate) struct Sink {
    stdout: Port,
    stderr: Port,
    only: Option<v1::Stream>,
}

struct Port {
    writer: Box<dyn Write + Send>,
    escaper: Option<Escaper>,
    buffer: Vec<u8>,
    /// Whether lines begin with their time, and if so whether the next byte begins one.
    stamps: Option<LineStart>,
}

/// Whether the next byte begins a line.
type LineStart = bool;

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
            stamps: None,
        };
        Self {
            stdout: port(stdout),
            stderr: port(stderr),
            only: None,
        }
    }

    /// Drops all but one stream, if one is named.
    pub(crate) fn only(self, only: Option<v1::Stream>) -> Self {
        Self { only, ..self }
    }

    /// Begins each line with the time at which its first byte was read.
    pub(crate) fn with_timestamps(mut self, wanted: bool) -> Self {
        self.stdout.stamps = wanted.then_some(true);
        self.stderr.stamps = wanted.then_some(true);
        self
    }

    /// Writes bytes of one stream, read at `at_ms`. Blocks as long as the reader does.
    ///
    /// # Errors
    /// What the system says; `BrokenPipe` if nobody reads.
    pub(crate) fn write(&mut self, stream: v1::Stream, at_ms: i64, bytes: &[u8]) -> io::Result<()> {
        if self.only.is_some_and(|only| only != stream) {
            return Ok(());
        }
        let port = match stream {
            v1::Stream::Stderr => &mut self.stderr,
            v1::Stream::Stdout | v1::Stream::Unspecified => &mut self.stdout,
        };
        match port.stamps {
            None => port.write(bytes),
            Some(_) => port.write_stamped(at_ms, bytes),
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

    fn write_stamped(&mut self, at_ms: i64, bytes: &[u8]) -> io::Result<()> {
        let at = view::time(at_ms).unwrap_or_else(|| "-".to_owned());
        let mut stamped = Vec::with_capacity(bytes.len() + at.len() + 1);
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.stamps == Some(true) {
                stamped.extend_from_slice(at.as_bytes());
                stamped.push(b' ');
            }
            stamped.extend_from_slice(line);
            self.stamps = Some(line.ends_with(b"\n"));
        }
        self.write(&stamped)
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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("not poisoned").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn each_line_has_the_time_of_its_first_byte() {
        let (out, err) = (Paper::default(), Paper::default());
        let sink = Sink::new((Box::new(out.clone()), false), (Box::new(err.clone()), false));
        let mut sink = sink.with_timestamps(true);
        let (early, late) = (1_000, 61_000);
        sink.write(v1::Stream::Stdout, early, b"a\nb").expect("written");
        sink.write(v1::Stream::Stderr, early, b"x\n").expect("written");
        sink.write(v1::Stream::Stdout, late, b"b\n\nc").expect("written");
        let text =
            |paper: &Paper| String::from_utf8(paper.0.lock().expect("not poisoned").clone()).expect("text");
        let (first, second) = ("1970-01-01T00:00:01Z", "1970-01-01T00:01:01Z");
        assert_eq!(
            text(&out),
            format!("{first} a\n{first} bb\n{second} \n{second} c")
        );
        assert_eq!(text(&err), format!("{first} x\n"));
    }

    #[test]
    fn one_stream_can_be_chosen() {
        let (out, err) = (Paper::default(), Paper::default());
        let sink = Sink::new((Box::new(out.clone()), false), (Box::new(err.clone()), false));
        let mut sink = sink.only(Some(v1::Stream::Stderr));
        sink.write(v1::Stream::Stdout, 0, b"out").expect("dropped");
        sink.write(v1::Stream::Stderr, 0, b"err").expect("written");
        assert!(out.0.lock().expect("not poisoned").is_empty());
        assert_eq!(*err.0.lock().expect("not poisoned"), b"err");
    }
}
