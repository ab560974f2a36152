//! A small client: what the tests ask of a server.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use hodei_jobs::v1;
use hodei_jobs::v1::job_execution_service_client::JobExecutionServiceClient;
use hodei_jobs::v1::log_stream_service_client::LogStreamServiceClient;
use hodei_jobs::v1::scheduler_service_client::SchedulerServiceClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};

use crate::platform::{PATIENCE, POLL};

/// A job with these words as its command; so small that all jobs of a test run at once on any machine.
pub(crate) fn command<S: AsRef<str>>(words: impl IntoIterator<Item = S>) -> v1::JobSpec {
    v1::JobSpec {
        command: words.into_iter().map(|word| word.as_ref().to_owned()).collect(),
        cpu_millis: 10,
        memory_bytes: 16 << 20,
        ..v1::JobSpec::default()
    }
}

/// A job that is a line of shell.
pub(crate) fn sh(line: impl AsRef<str>) -> v1::JobSpec {
    command(["sh", "-c", line.as_ref()])
}

/// The end of a job: state, exit code, signal and reason.
pub(crate) type End = (v1::JobState, Option<i32>, Option<i32>, &'static str);

/// Asserts how a job ended.
pub(crate) fn assert_end(job: &v1::Job, (state, exit_code, signal, reason): End) {
    let end = (job.state(), job.exit_code, job.signal, job.reason.as_str());
    assert_eq!(end, (state, exit_code, signal, reason), "{job:?}");
    assert!(!job.message.is_empty() && job.ended_at_ms > 0, "{job:?}");
}

/// A client on one connection.
#[derive(Clone)]
pub(crate) struct Client {
    channel: Channel,
    token: String,
}

/// What was read of an attempt's output.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Output {
    pub(crate) attempt: u32,
    /// Both streams in the order in which they were read.
    pub(crate) both: Vec<u8>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    /// Whether the server said that nothing is missing.
    pub(crate) complete: bool,
}

impl Client {
    /// Connects to a URL.
    pub(crate) async fn connect(address: &str, token: String) -> Self {
        let endpoint = Endpoint::from_shared(address.to_owned()).expect("a URL");
        let channel = endpoint.connect().await.expect("connected");
        Self { channel, token }
    }

    /// A message with the token.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let value = format!("Bearer {}", self.token).parse().expect("a value");
        request.metadata_mut().insert("authorization", value);
        request
    }

    pub(crate) fn jobs(&self) -> JobExecutionServiceClient<Channel> {
        JobExecutionServiceClient::new(self.channel.clone())
    }

    pub(crate) fn scheduler(&self) -> SchedulerServiceClient<Channel> {
        SchedulerServiceClient::new(self.channel.clone())
    }

    /// Asks to queue a job.
    pub(crate) async fn send(&self, request: v1::QueueJobRequest) -> Result<v1::Job, Status> {
        let answer = self.jobs().queue_job(self.request(request)).await?;
        Ok(answer.into_inner().job.expect("a job"))
    }

    /// Queues a job under a fresh request id; its id.
    pub(crate) async fn queue(&self, spec: v1::JobSpec) -> String {
        self.send(request(spec)).await.expect("queued").id
    }

    pub(crate) async fn get(&self, job: &str) -> v1::Job {
        let request = v1::GetJobRequest {
            job_id: job.to_owned(),
        };
        let answer = self.jobs().get_job(self.request(request)).await.expect("there");
        answer.into_inner().job.expect("a job")
    }

    pub(crate) async fn list(&self) -> Vec<v1::Job> {
        let request = v1::ListJobsRequest {
            page_size: 1_000,
            ..v1::ListJobsRequest::default()
        };
        self.jobs()
            .list_jobs(self.request(request))
            .await
            .expect("listed")
            .into_inner()
            .jobs
    }

    pub(crate) async fn cancel(&self, job: &str) -> v1::Job {
        let request = v1::CancelJobRequest {
            job_id: job.to_owned(),
            reason: "a test wants it".to_owned(),
        };
        let answer = self
            .jobs()
            .cancel_job(self.request(request))
            .await
            .expect("recorded");
        answer.into_inner().job.expect("a job")
    }

    pub(crate) async fn workers(&self) -> Vec<v1::Worker> {
        let request = self.request(v1::ListWorkersRequest { all: false });
        self.scheduler()
            .list_workers(request)
            .await
            .expect("listed")
            .into_inner()
            .workers
    }

    /// Waits until something holds of the workers that are not gone.
    pub(crate) async fn until_workers(&self, what: &str, holds: impl Fn(&[v1::Worker]) -> bool) {
        let start = Instant::now();
        while !holds(&self.workers().await) {
            assert!(start.elapsed() < PATIENCE, "{what}");
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until something holds of a job.
    pub(crate) async fn until(&self, job: &str, what: &str, holds: impl Fn(&v1::Job) -> bool) -> v1::Job {
        let began = Instant::now();
        loop {
            let now = self.get(job).await;
            if holds(&now) {
                return now;
            }
            assert!(began.elapsed() < PATIENCE, "not in time: {what}; {now:?}");
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until a job runs and has written something.
    pub(crate) async fn running(&self, job: &str) -> v1::Job {
        let writes = |job: &v1::Job| {
            job.attempts
                .last()
                .is_some_and(|attempt| attempt.output_bytes > 0)
        };
        self.until(job, "it runs", |job| {
            job.state() == v1::JobState::Running && writes(job)
        })
        .await
    }

    /// Follows a job to its end, which stays as it is told.
    pub(crate) async fn ended(&self, job: &str) -> v1::Job {
        let request = v1::WatchJobRequest {
            job_id: job.to_owned(),
        };
        let watch = async {
            let mut states = self
                .jobs()
                .watch_job(self.request(request))
                .await
                .expect("there")
                .into_inner();
            let mut last = None;
            while let Some(state) = states.message().await.expect("followed to the end") {
                last = state.job;
            }
            last.expect("a state")
        };
        let Ok(last) = tokio::time::timeout(PATIENCE, watch).await else {
            panic!("does not end: {:?}", self.get(job).await);
        };
        assert!(last.ended_at_ms > 0, "{last:?}");
        assert_eq!(self.get(job).await, last);
        last
    }

    /// Opens an attempt's output.
    pub(crate) async fn open(&self, request: v1::ReadOutputRequest) -> Streaming<v1::ReadOutputResponse> {
        let mut service = LogStreamServiceClient::new(self.channel.clone());
        service
            .read_output(self.request(request))
            .await
            .expect("there")
            .into_inner()
    }

    /// All output of an attempt of a job that has ended, or follows it to its end.
    pub(crate) async fn output(&self, job: &str, attempt: u32) -> Output {
        self.output_from(job, attempt, 0).await
    }

    /// As [`Client::output`], without what stands before `position`.
    pub(crate) async fn output_from(&self, job: &str, attempt: u32, position: u64) -> Output {
        let request = v1::ReadOutputRequest {
            job_id: job.to_owned(),
            attempt,
            position,
            follow: true,
        };
        read(self.open(request).await, position).await
    }
}

/// A request with an id that no other has.
pub(crate) fn request(spec: v1::JobSpec) -> v1::QueueJobRequest {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    v1::QueueJobRequest {
        request_id: format!("request-{}", NEXT.fetch_add(1, Ordering::Relaxed)),
        spec: Some(spec),
        namespace: String::new(),
    }
}

/// Reads output to its end, each byte where it belongs.
pub(crate) async fn read(mut stream: Streaming<v1::ReadOutputResponse>, mut position: u64) -> Output {
    use v1::read_output_response::Event;
    let mut output = Output::default();
    let mut ended = false;
    let whole = async {
        while let Some(message) = stream.message().await.expect("read to the end") {
            assert!(!ended, "something follows the end");
            match message.event.expect("an event") {
                Event::Started(started) => output.attempt = started.attempt,
                Event::Piece(piece) => {
                    assert_eq!(piece.start, position, "a gap or bytes twice");
                    position += piece.data.len() as u64;
                    output.add(&piece);
                }
                Event::End(end) => {
                    assert_eq!(end.position, position);
                    assert!(end.attempt_ended);
                    (output.complete, ended) = (end.complete, true);
                }
            }
        }
    };
    tokio::time::timeout(PATIENCE, whole)
        .await
        .expect("the output ends");
    assert!(ended, "the end is missing");
    output
}

impl Output {
    fn add(&mut self, piece: &v1::OutputPiece) {
        let mut rest = &piece.data[..];
        for run in &piece.runs {
            let length = usize::try_from(run.length).expect("a length");
            let (bytes, after) = rest.split_at(length);
            match run.stream() {
                v1::Stream::Stdout => self.stdout.extend(bytes),
                v1::Stream::Stderr => self.stderr.extend(bytes),
                v1::Stream::Unspecified => panic!("bytes of no stream"),
            }
            rest = after;
        }
        assert!(rest.is_empty(), "bytes without a run");
        self.both.extend(&piece.data);
    }

    /// Standard output as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("UTF-8")
    }
}
