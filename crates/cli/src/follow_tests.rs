//! Following against a server that breaks off, repeats itself and goes away.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use hodei_jobs::v1::job_execution_service_server::{JobExecutionService, JobExecutionServiceServer};
use hodei_jobs::v1::log_stream_service_server::{LogStreamService, LogStreamServiceServer};
use hodei_jobs::v1::read_output_response::Event;
use tokio_stream::Stream;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response};

use super::*;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Script<T> = VecDeque<Vec<Result<T, Status>>>;

/// Answers each call with the next script, and remembers what was asked for.
#[derive(Clone, Default)]
struct Fake {
    states: Arc<Mutex<Script<v1::Job>>>,
    output: Arc<Mutex<Script<Event>>>,
    asked: Arc<Mutex<Vec<(u32, u64)>>>,
}

fn scripted<T: Send + 'static, U: Send + 'static>(
    script: &Mutex<Script<T>>,
    wrap: impl Fn(T) -> U + Send + 'static,
) -> Result<Response<Answers<U>>, Status> {
    let next = script.lock().expect("not poisoned").pop_front();
    let next = next.ok_or_else(|| Status::failed_precondition("no script is left"))?;
    let answers = next.into_iter().map(move |answer| answer.map(&wrap));
    Ok(Response::new(Box::pin(tokio_stream::iter(
        answers.collect::<Vec<_>>(),
    ))))
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl JobExecutionService for Fake {
    type WatchJobStream = Answers<v1::WatchJobResponse>;

    async fn watch_job(&self, _: Request<v1::WatchJobRequest>) -> Answer<Self::WatchJobStream> {
        scripted(&self.states, |job| v1::WatchJobResponse { job: Some(job) })
    }

    async fn queue_job(&self, _: Request<v1::QueueJobRequest>) -> Answer<v1::QueueJobResponse> {
        Err(Status::unimplemented(""))
    }

    async fn get_job(&self, _: Request<v1::GetJobRequest>) -> Answer<v1::GetJobResponse> {
        Err(Status::unimplemented(""))
    }

    async fn list_jobs(&self, _: Request<v1::ListJobsRequest>) -> Answer<v1::ListJobsResponse> {
        Err(Status::unimplemented(""))
    }

    async fn cancel_job(&self, _: Request<v1::CancelJobRequest>) -> Answer<v1::CancelJobResponse> {
        Err(Status::unimplemented(""))
    }

    async fn retry_job(&self, _: Request<v1::RetryJobRequest>) -> Answer<v1::RetryJobResponse> {
        Err(Status::unimplemented(""))
    }

    async fn send_input(&self, _: Request<v1::SendInputRequest>) -> Answer<v1::SendInputResponse> {
        Err(Status::unimplemented(""))
    }

    async fn list_job_events(
        &self,
        _: Request<v1::ListJobEventsRequest>,
    ) -> Answer<v1::ListJobEventsResponse> {
        Err(Status::unimplemented(""))
    }
}

#[tonic::async_trait]
impl LogStreamService for Fake {
    type ReadOutputStream = Answers<v1::ReadOutputResponse>;

    async fn read_output(&self, request: Request<v1::ReadOutputRequest>) -> Answer<Self::ReadOutputStream> {
        let request = request.into_inner();
        let asked = (request.attempt, request.position);
        self.asked.lock().expect("not poisoned").push(asked);
        scripted(&self.output, |event| v1::ReadOutputResponse {
            event: Some(event),
        })
    }
}

/// A writer whose bytes can be looked at.
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

impl Paper {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("not poisoned")).into_owned()
    }
}

/// A writer that nobody reads.
struct Closed;

impl Write for Closed {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Followed {
    result: Result<Option<v1::Job>>,
    asked: Vec<(u32, u64)>,
}

async fn follow(fake: Fake, attempts: Attempts, sink: &mut Sink) -> Followed {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("bound");
    let server = Server::builder()
        .add_service(JobExecutionServiceServer::new(fake.clone()))
        .add_service(LogStreamServiceServer::new(fake.clone()))
        .serve_with_incoming(TcpListenerStream::new(listener));
    let server = tokio::spawn(server);
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("a URL");
    let client = Client::over_channel(endpoint.connect_lazy());
    let follow = Follow {
        client: &client,
        job_id: "ID",
        attempts,
        patience: Duration::from_secs(20),
        begin: (seek::Start::First, 0),
        only: None,
        hopeless: Hopeless::Wait,
    };
    let result = tokio::time::timeout(Duration::from_secs(30), follow.run(sink)).await;
    server.abort();
    let asked = fake.asked.lock().expect("not poisoned").clone();
    Followed {
        result: result.expect("within the time"),
        asked,
    }
}

fn job(state: v1::JobState, attempts: &[v1::AttemptState]) -> v1::Job {
    let attempt = |(index, state): (usize, &v1::AttemptState)| v1::Attempt {
        number: index as u32 + 1,
        state: (*state).into(),
        ..Default::default()
    };
    v1::Job {
        id: "ID".into(),
        state: state.into(),
        attempts: attempts.iter().enumerate().map(attempt).collect(),
        ..Default::default()
    }
}

/// A piece of the log `aabbcc…`: two bytes of stdout, two of stderr, in turn.
fn piece(start: u64, data: &'static str, runs: &[(v1::Stream, u64)]) -> Result<Event, Status> {
    let run = |(stream, length): &(v1::Stream, u64)| v1::OutputRun {
        stream: (*stream).into(),
        length: *length,
        at_ms: 0,
    };
    Ok(Event::Piece(v1::OutputPiece {
        start,
        data: data.as_bytes().into(),
        runs: runs.iter().map(run).collect(),
    }))
}

fn end(position: u64, attempt_ended: bool) -> Result<Event, Status> {
    Ok(Event::End(v1::OutputEnd {
        position,
        complete: attempt_ended,
        attempt_ended,
    }))
}

fn started(attempt: u32) -> Result<Event, Status> {
    Ok(Event::Started(v1::AttemptStarted { attempt }))
}

fn papers() -> (Paper, Paper, Sink) {
    let (out, err) = (Paper::default(), Paper::default());
    let sink = Sink::new((Box::new(out.clone()), false), (Box::new(err.clone()), false));
    (out, err, sink)
}

use v1::Stream::{Stderr, Stdout};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn output_is_resumed_without_losing_or_doubling_a_byte() {
    let fake = Fake::default();
    *fake.states.lock().expect("free") = VecDeque::from([
        vec![
            Ok(job(v1::JobState::Queued, &[])),
            Err(Status::unavailable("restart")),
        ],
        vec![],
        vec![
            Ok(job(v1::JobState::Running, &[v1::AttemptState::Running])),
            Ok(job(v1::JobState::Succeeded, &[v1::AttemptState::Succeeded])),
        ],
    ]);
    *fake.output.lock().expect("free") = VecDeque::from([
        vec![Err(Status::unavailable("not yet"))],
        vec![
            started(1),
            piece(0, "aabb", &[(Stdout, 2), (Stderr, 2)]),
            Err(Status::unavailable("gone")),
        ],
        // From a server that can only cut at its own pieces, and then stops without a word.
        vec![
            started(1),
            piece(0, "aabbcc", &[(Stdout, 2), (Stderr, 2), (Stdout, 2)]),
            piece(2, "bb", &[(Stderr, 2)]),
        ],
        vec![piece(5, "cdd", &[(Stdout, 1), (Stderr, 2)]), end(8, false)],
        vec![end(8, true)],
    ]);
    let (out, err, mut sink) = papers();
    let followed = follow(fake, Attempts::From(1), &mut sink).await;
    let ended = followed.result.expect("followed").expect("to its end");
    assert_eq!(ended.state(), v1::JobState::Succeeded);
    assert_eq!((out.text().as_str(), err.text().as_str()), ("aacc", "bbdd"));
    assert_eq!(followed.asked, [(1, 0), (1, 0), (1, 4), (1, 6), (1, 8)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_attempt_is_followed_too() {
    let fake = Fake::default();
    use v1::AttemptState::{Lost, Running, Succeeded};
    *fake.states.lock().expect("free") = VecDeque::from([vec![
        Ok(job(v1::JobState::Running, &[Running])),
        Ok(job(v1::JobState::Queued, &[Lost])),
        Ok(job(v1::JobState::Succeeded, &[Lost, Succeeded])),
    ]]);
    *fake.output.lock().expect("free") = VecDeque::from([
        vec![started(1), piece(0, "one", &[(Stdout, 3)]), end(3, true)],
        vec![started(2), piece(0, "two", &[(Stdout, 3)]), end(3, true)],
    ]);
    let (out, _, mut sink) = papers();
    let followed = follow(fake, Attempts::From(1), &mut sink).await;
    assert!(followed.result.expect("followed").is_some());
    assert_eq!(out.text(), "onetwo");
    assert_eq!(followed.asked, [(1, 0), (2, 0)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_attempt_ends_before_its_job() {
    let fake = Fake::default();
    let attempts = [v1::AttemptState::Failed, v1::AttemptState::Running];
    // The watch goes on after the attempt: what it says later is not waited for.
    *fake.states.lock().expect("free") = VecDeque::from([vec![Ok(job(v1::JobState::Running, &attempts))]]);
    *fake.output.lock().expect("free") =
        VecDeque::from([vec![piece(0, "one", &[(Stdout, 3)]), end(3, true)]]);
    let (out, _, mut sink) = papers();
    let followed = follow(fake, Attempts::Only(1), &mut sink).await;
    assert_eq!(followed.result.expect("followed"), None);
    assert_eq!(out.text(), "one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_never_started_has_no_output() {
    let fake = Fake::default();
    *fake.states.lock().expect("free") = VecDeque::from([vec![Ok(job(v1::JobState::Cancelled, &[]))]]);
    let (out, _, mut sink) = papers();
    let followed = follow(fake, Attempts::Last, &mut sink).await;
    assert_eq!(
        followed.result.expect("followed").map(|job| job.state()),
        Some(v1::JobState::Cancelled)
    );
    assert!(out.text().is_empty() && followed.asked.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_final_and_a_closed_reader_ends_quietly() {
    let fake = Fake::default();
    *fake.states.lock().expect("free") = VecDeque::from([vec![Err(Status::not_found("no job ID"))]]);
    let (_, _, mut sink) = papers();
    let refused = follow(fake, Attempts::From(1), &mut sink)
        .await
        .result
        .expect_err("refused");
    assert!(refused.to_string().contains("no job ID"), "{refused:#}");

    let fake = Fake::default();
    let running = job(v1::JobState::Running, &[v1::AttemptState::Running]);
    *fake.states.lock().expect("free") = VecDeque::from([vec![Ok(running)]]);
    *fake.output.lock().expect("free") = VecDeque::from([vec![piece(0, "one", &[(Stdout, 3)])]]);
    let mut sink = Sink::new((Box::new(Closed), false), (Box::new(Closed), false));
    let gone = follow(fake, Attempts::From(1), &mut sink)
        .await
        .result
        .expect_err("nobody reads");
    assert!(gone.is::<crate::errors::ReaderGone>(), "{gone:#}");
}

#[tokio::test(start_paused = true)]
async fn patience_ends() {
    let mut outage = Outage::new("ID", Duration::from_secs(60), true);
    let began = Instant::now();
    let error = loop {
        if let Err(error) = outage.pause(Some(Status::unavailable("away"))).await {
            break error;
        }
    };
    assert!(error.to_string().contains("hodei job logs -f ID"), "{error:#}");
    let waited = began.elapsed().as_secs();
    assert!((60..63).contains(&waited), "{waited}");
}
