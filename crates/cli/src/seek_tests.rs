//! Seeking in an output that a fake server holds, compared with what a whole read would find.

use std::pin::Pin;
use std::sync::{Arc, Mutex};

use hodei_jobs::v1::log_stream_service_server::{LogStreamService, LogStreamServiceServer};
use hodei_jobs::v1::read_output_response::Event;
use tokio_stream::Stream;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status};

use super::*;

/// Runs of one output, each a piece of its own.
#[derive(Clone, Default)]
struct Fake {
    runs: Arc<Vec<(v1::Stream, i64, Vec<u8>)>>,
    read: Arc<Mutex<u64>>,
}

type Answers = Pin<Box<dyn Stream<Item = Result<v1::ReadOutputResponse, Status>> + Send>>;

#[tonic::async_trait]
impl LogStreamService for Fake {
    type ReadOutputStream = Answers;

    async fn read_output(
        &self,
        request: Request<v1::ReadOutputRequest>,
    ) -> Result<Response<Answers>, Status> {
        let from = request.into_inner().position;
        let (mut at, mut events) = (0, Vec::new());
        for (stream, at_ms, bytes) in self.runs.iter() {
            let start = at;
            at += bytes.len() as u64;
            if at <= from {
                continue;
            }
            let piece = v1::OutputPiece {
                start,
                data: bytes.clone().into(),
                runs: vec![v1::OutputRun {
                    stream: (*stream).into(),
                    length: bytes.len() as u64,
                    at_ms: *at_ms,
                }],
            };
            let read = Arc::clone(&self.read);
            let length = bytes.len() as u64;
            events.push((piece, read, length));
        }
        let answers = events.into_iter().map(|(piece, read, length)| {
            *read.lock().expect("not poisoned") += length;
            Ok(v1::ReadOutputResponse {
                event: Some(Event::Piece(piece)),
            })
        });
        Ok(Response::new(Box::pin(tokio_stream::iter(answers))))
    }
}

async fn position(runs: Vec<(v1::Stream, i64, Vec<u8>)>, only: Option<v1::Stream>, start: Start) -> u64 {
    let fake = Fake {
        runs: Arc::new(runs),
        ..Fake::default()
    };
    let length = fake.runs.iter().map(|(_, _, bytes)| bytes.len() as u64).sum();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("bound");
    let server = Server::builder()
        .add_service(LogStreamServiceServer::new(fake))
        .serve_with_incoming(TcpListenerStream::new(listener));
    let server = tokio::spawn(server);
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("a URL");
    let client = Client::over_channel(endpoint.connect_lazy());
    let job = v1::Job {
        attempts: vec![v1::Attempt {
            number: 1,
            output_bytes: length,
            ..Default::default()
        }],
        ..Default::default()
    };
    let output = Output {
        client: &client,
        job: &job,
        attempt: 1,
        only,
    };
    let found = output.position(start).await.expect("found");
    server.abort();
    found
}

fn out(text: &str) -> (v1::Stream, i64, Vec<u8>) {
    (v1::Stream::Stdout, 0, text.into())
}

fn err(text: &str) -> (v1::Stream, i64, Vec<u8>) {
    (v1::Stream::Stderr, 0, text.into())
}

#[tokio::test]
async fn the_last_lines_are_those_of_tail() {
    for (text, lines, want) in [
        ("", 5, 0),
        ("a\nb\nc\n", 0, 6),
        ("a\nb\nc\n", 1, 4),
        ("a\nb\nc", 1, 4),
        ("a\nb\nc\n", 2, 2),
        ("a\nb\nc\n", 3, 0),
        ("a\nb\nc\n", 9, 0),
        ("a\n\n\n", 2, 2),
        ("no line end", 1, 0),
    ] {
        assert_eq!(
            position(vec![out(text)], None, Start::LastLines(lines)).await,
            want,
            "{text:?} {lines}"
        );
    }
    let mixed = || vec![out("o1\no2\n"), err("e1\ne2\ne3\n"), out("o3\n"), err("e4\n")];
    let of = |stream, lines| position(mixed(), Some(stream), Start::LastLines(lines));
    assert_eq!(of(v1::Stream::Stdout, 1).await, 6, "behind o2");
    assert_eq!(of(v1::Stream::Stderr, 2).await, 12, "behind e2");
}

#[tokio::test]
async fn only_the_end_of_a_long_output_is_read() {
    let line = "0123456789abcde\n";
    let block = line.repeat(4_096);
    let runs: Vec<_> = (0..64).map(|_| out(&block)).collect();
    let length = block.len() as u64 * 64;
    // More than one step back.
    let lines = 10_000;
    let found = position(runs, None, Start::LastLines(lines)).await;
    assert_eq!(found, length - lines * line.len() as u64);
}

#[tokio::test]
async fn a_moment_is_found_by_halving() {
    let runs: Vec<_> = (0..100)
        .map(|n| (v1::Stream::Stdout, n * 1_000, b"0123456789".to_vec()))
        .collect();
    for (at_ms, want) in [
        (0, 0),
        (1, 10),
        (50_000, 500),
        (50_001, 510),
        (99_000, 990),
        (99_001, 1_000),
    ] {
        assert_eq!(
            position(runs.clone(), None, Start::Since(at_ms)).await,
            want,
            "{at_ms}"
        );
    }
}
