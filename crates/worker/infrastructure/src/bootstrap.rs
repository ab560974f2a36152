//! Takes the bootstrap document from standard input, which is closed afterwards.

use std::fs::File;
use std::io::{self, Read};
use std::time::Duration;

pub use hodei_jobs::bootstrap::Bootstrap;
use hodei_worker_application::worker::WorkerConfig;

/// The largest document, its newline included.
const MAX_BYTES: usize = 64 << 10;
/// How many bytes of output without acknowledgement stop an attempt's pipes.
const OUTPUT_LIMIT: u64 = 1 << 30;

/// Reads one line of JSON from standard input and puts /dev/null in its place.
///
/// # Errors
/// [`io::Error`] if there is no line of at most 64 KiB or it is not a document. The message repeats nothing of it.
pub fn take() -> io::Result<Bootstrap> {
    let line = read_line(&mut io::stdin().lock())?;
    let null = File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    parse(&line)
}

fn read_line(input: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < MAX_BYTES {
        if input.read(&mut byte)? == 0 || byte[0] == b'\n' {
            return Ok(line);
        }
        line.push(byte[0]);
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        "the bootstrap document is longer than 64 KiB",
    ))
}

fn parse(line: &[u8]) -> io::Result<Bootstrap> {
    serde_json::from_slice(line).map_err(|error| {
        let place = format!("the bootstrap document is not valid at column {}", error.column());
        io::Error::new(io::ErrorKind::InvalidData, place)
    })
}

/// What the document tells the worker itself.
pub fn config(document: &Bootstrap) -> WorkerConfig {
    WorkerConfig {
        otp: document.otp.clone(),
        socket: document.socket.clone(),
        addresses: document.addresses.clone(),
        cpu_millis: document.cpu_millis,
        memory_bytes: document.memory_bytes,
        slots: document.slots.max(1),
        leave_after: Duration::from_millis(document.leave_after_ms),
        jobs_end_with_server: document.jobs_end_with_server,
        server_now_ms: document.now_ms,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        output_limit: OUTPUT_LIMIT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_one_line_and_its_errors_tell_nothing() {
        let document =
            r#"{"otp":"hodei_otp_a_b","root_certificates":"","server_name":"hodei.test","addresses":[],
            "socket":null,"now_ms":5,"worker_id":"w","cpu_millis":1000,"memory_bytes":1,"slots":2,
            "leave_after_ms":5000}"#
                .replace('\n', " ");
        let mut input = io::Cursor::new(format!("{document}\nrest"));
        let line = read_line(&mut input).expect("a line");
        let config = config(&parse(&line).expect("valid"));
        assert_eq!((config.slots, config.leave_after), (2, Duration::from_secs(5)));
        let error = parse(br#"{"otp":"hodei_otp_secret"}"#).expect_err("fields are missing");
        assert!(!error.to_string().contains("secret"), "{error}");
        assert!(read_line(&mut io::Cursor::new(vec![b'x'; MAX_BYTES + 1])).is_err());
    }
}
