//! WorkerAgentService: registration, renewal, the session and the output of workers.
//!
//! The session adapter moves frames between the wire and the bounded channels of a [`WorkerLink`]; it decides
//! nothing. Both streams end with the certificate they came with, with the worker's last word, and when the server
//! closes.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use hodei_jobs::v1;
use hodei_jobs::v1::worker_agent_service_server::WorkerAgentService;
use hodei_server_application::input::{self, Pulled};
use hodei_server_application::output::{self, Ingested};
use hodei_server_application::platform::Platform;
use hodei_server_application::ports::link::{FromWorker, WorkerIdentity, WorkerLink};
use hodei_server_application::refused::Refused;
use hodei_server_application::session;
use hodei_server_application::workers::{self, Shown};
use hodei_shared::ids::AttemptKey;
use hodei_shared::offsets::Piece;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status, Streaming};

use super::convert::frames;
use super::errors::{invalid, plain, register_status, renew_status, status};
use super::streams::{Answers, Life, ending, wall_time};
use crate::auth::worker;

/// Frames of a session that wait on each side.
const SESSION_FRAMES: usize = 64;
/// How often a stream without a session looks whether its worker was revoked.
const REVOCATION_LOOK: Duration = Duration::from_millis(500);
/// Batches of output that wait to be stored, and answers that wait to be read.
const WAITING_BATCHES: usize = 16;
/// How much output is stored at once.
const MAX_INGEST_BYTES: usize = 4 << 20;
const MAX_INGEST_BATCHES: usize = 256;

pub(crate) struct WorkerAgent {
    pub(crate) platform: Arc<Platform>,
    pub(crate) closing: CancellationToken,
}

impl WorkerAgent {
    /// The life of a stream that came with a certificate: it ends with that, and soon after a revocation. The
    /// worker's session sees a revocation by itself; while there is none, the store is asked.
    fn life(&self, identity: WorkerIdentity) -> Life {
        let life = Life::new(&self.closing);
        let (platform, ends) = (Arc::clone(&self.platform), life.clone());
        let end = async move {
            let why = tokio::select! {
                biased;
                () = ends.over() => return,
                () = wall_time(&platform, identity.not_after_ms) => {
                    plain(Code::Unauthenticated, "certificate_ended", "the certificate has ended; renew it")
                }
                refused = revoked(&platform, &identity) => status(refused),
            };
            ends.end(why);
        };
        self.platform.spawner.spawn("certificate end", Box::pin(end));
        life
    }
}

/// Ends when the worker may have no stream any more.
async fn revoked(platform: &Platform, identity: &WorkerIdentity) -> Refused {
    loop {
        platform.clock.sleep(REVOCATION_LOOK).await;
        if platform.is_connected(identity.worker) {
            continue;
        }
        match workers::check(platform, identity).await {
            Err(refused) if !refused.retryable() => return refused,
            // A store that does not answer says nothing about the worker.
            _ => {}
        }
    }
}

#[tonic::async_trait]
impl WorkerAgentService for WorkerAgent {
    async fn register_worker(
        &self,
        request: Request<v1::RegisterWorkerRequest>,
    ) -> Result<Response<v1::RegisterWorkerResponse>, Status> {
        let v1::RegisterWorkerRequest { otp, csr_der } = request.into_inner();
        let registered = workers::register(&self.platform, &otp, &csr_der).await;
        let certificate_chain_der = registered.map_err(|error| register_status(&error))?;
        Ok(Response::new(v1::RegisterWorkerResponse {
            certificate_chain_der,
        }))
    }

    async fn renew_certificate(
        &self,
        request: Request<v1::RenewCertificateRequest>,
    ) -> Result<Response<v1::RenewCertificateResponse>, Status> {
        let certificate = worker(&request)?;
        let shown = Shown {
            identity: certificate.identity,
            spki: certificate.spki,
        };
        let renewed = workers::renew(&self.platform, shown, &request.get_ref().csr_der).await;
        let certificate_chain_der = renewed.map_err(|error| renew_status(&error))?;
        Ok(Response::new(v1::RenewCertificateResponse {
            certificate_chain_der,
        }))
    }

    type ConnectStream = Answers<v1::ServerFrame>;

    async fn connect(
        &self,
        request: Request<Streaming<v1::WorkerFrame>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let identity = worker(&request)?.identity;
        let life = self.life(identity);
        let (from_worker, incoming) = mpsc::channel(SESSION_FRAMES);
        let (outgoing, to_worker) = mpsc::channel(SESSION_FRAMES);
        let reading = read_frames(request.into_inner(), from_worker, life.clone());
        let link = WorkerLink { incoming, outgoing };
        let serving = session::serve(Arc::clone(&self.platform), identity, link);
        let spawner = &self.platform.spawner;
        spawner.spawn("session frames", Box::pin(reading));
        spawner.spawn("session", Box::pin(serving));
        let answers = ReceiverStream::new(to_worker).map(|frame| Ok(frames::to_worker(frame)));
        Ok(Response::new(ending(answers, life)))
    }

    async fn read_input(
        &self,
        request: Request<v1::ReadInputRequest>,
    ) -> Result<Response<v1::ReadInputResponse>, Status> {
        let identity = worker(&request)?.identity;
        let (key, offset) = frames::input_request(request.into_inner()).map_err(invalid)?;
        let pulled = tokio::select! {
            biased;
            () = self.closing.cancelled() => Pulled::More(Vec::new()),
            pulled = input::pull(&self.platform, &identity, key, offset) => pulled.map_err(status)?,
        };
        Ok(Response::new(frames::input_answer(pulled)))
    }

    type StreamOutputStream = Answers<v1::OutputAnswer>;

    async fn stream_output(
        &self,
        request: Request<Streaming<v1::OutputBatch>>,
    ) -> Result<Response<Self::StreamOutputStream>, Status> {
        let identity = worker(&request)?.identity;
        let life = self.life(identity);
        let (waiting, batches) = mpsc::channel(WAITING_BATCHES);
        let (answers, answered) = mpsc::channel(WAITING_BATCHES);
        let reading = read_batches(request.into_inner(), waiting, life.clone());
        let ingest = Ingest {
            platform: Arc::clone(&self.platform),
            identity,
            batches,
            answers,
            resend_from: BTreeMap::new(),
            life: life.clone(),
        };
        let spawner = &self.platform.spawner;
        spawner.spawn("output batches", Box::pin(reading));
        spawner.spawn("output ingest", Box::pin(ingest.run()));
        let answers = ReceiverStream::new(answered).map(Ok);
        Ok(Response::new(ending(answers, life)))
    }
}

/// Moves frames from the wire into the session until either ends.
async fn read_frames(mut wire: Streaming<v1::WorkerFrame>, session: mpsc::Sender<FromWorker>, life: Life) {
    let reading = async {
        while let Some(frame) = wire.message().await? {
            let frame = frames::from_worker(frame).map_err(invalid)?;
            if session.send(frame).await.is_err() {
                break;
            }
        }
        Ok(())
    };
    read(reading, &life).await;
}

/// Moves batches of output from the wire to where they are stored until either ends.
async fn read_batches(
    mut wire: Streaming<v1::OutputBatch>,
    waiting: mpsc::Sender<(AttemptKey, Piece)>,
    life: Life,
) {
    let reading = async {
        while let Some(batch) = wire.message().await? {
            let batch = frames::output_batch(batch).map_err(invalid)?;
            if waiting.send(batch).await.is_err() {
                break;
            }
        }
        Ok(())
    };
    read(reading, &life).await;
}

/// Reads to the end, to the end of the stream's life, or to something that ends it.
async fn read(reading: impl Future<Output = Result<(), Status>>, life: &Life) {
    tokio::select! {
        biased;
        () = life.over() => {}
        done = reading => if let Err(status) = done {
            tracing::debug!(error = %status, "a worker's stream broke");
            life.end(status);
        }
    }
}

/// Stores what a worker sends, all batches that wait at once, and answers each.
struct Ingest {
    platform: Arc<Platform>,
    identity: WorkerIdentity,
    batches: mpsc::Receiver<(AttemptKey, Piece)>,
    answers: mpsc::Sender<v1::OutputAnswer>,
    /// Where each attempt of this stream goes on after something could not be stored.
    resend_from: BTreeMap<AttemptKey, u64>,
    life: Life,
}

impl Ingest {
    async fn run(mut self) {
        let life = self.life.clone();
        tokio::select! {
            biased;
            () = life.over() => {}
            () = self.ingest() => {}
        }
    }

    async fn ingest(&mut self) {
        while let Some(first) = self.batches.recv().await {
            let gathered = self.gather(first);
            for (key, piece) in &gathered {
                self.resend_from.entry(*key).or_insert(piece.start);
            }
            for (key, ingested) in output::ingest(&self.platform, &self.identity, gathered).await {
                let Some(answer) = self.answer(key, ingested) else {
                    let message = "this output is not this worker's";
                    return self.life.end(plain(Code::PermissionDenied, "denied", message));
                };
                if self.answers.send(answer).await.is_err() {
                    return;
                }
            }
        }
    }

    /// What waits, up to a bound.
    fn gather(&mut self, first: (AttemptKey, Piece)) -> Vec<(AttemptKey, Piece)> {
        let mut bytes = first.1.data.len();
        let mut gathered = vec![first];
        while bytes < MAX_INGEST_BYTES && gathered.len() < MAX_INGEST_BATCHES {
            let Ok(next) = self.batches.try_recv() else {
                break;
            };
            bytes += next.1.data.len();
            gathered.push(next);
        }
        gathered
    }

    fn answer(&mut self, key: AttemptKey, ingested: Ingested) -> Option<v1::OutputAnswer> {
        if let Ingested::Stored(end) = ingested {
            self.resend_from.insert(key, end);
        }
        let resend_from = self.resend_from.get(&key).copied().unwrap_or_default();
        if ingested == Ingested::Stale {
            self.resend_from.remove(&key);
        }
        frames::output_answer(key, ingested, resend_from)
    }
}
