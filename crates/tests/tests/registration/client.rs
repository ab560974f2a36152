//! The other end: hand-made workers, honest and hostile, over real TLS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hodei_jobs::v1;
use hodei_jobs::v1::server_frame::Frame as ServerKind;
use hodei_jobs::v1::worker_agent_service_client::WorkerAgentServiceClient;
use hodei_jobs::v1::worker_frame::Frame as WorkerKind;
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt as _;

use crate::provider::Machine;
use crate::world::{PATIENCE, World, eventually};

pub(crate) type Agent = WorkerAgentServiceClient<Channel>;

/// A status as the caller hears it, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) code: Code,
    pub(crate) message: String,
    pub(crate) reason: String,
    details: Vec<u8>,
    headers: Vec<(String, String)>,
}

impl From<&Status> for Heard {
    fn from(status: &Status) -> Self {
        let headers = status.metadata().clone().into_headers();
        let headers = headers.iter().filter(|(name, _)| *name != http::header::DATE);
        let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        Self {
            code: status.code(),
            message: status.message().to_owned(),
            reason: reason(status),
            details: status.details().to_vec(),
            headers: headers
                .map(|(name, value)| (name.to_string(), text(value)))
                .collect(),
        }
    }
}

/// The reason word of a status; empty if it has none.
pub(crate) fn reason(status: &Status) -> String {
    let info = status.get_details_error_info();
    info.map(|info| info.reason).unwrap_or_default()
}

/// The one answer to every registration that is refused.
pub(crate) fn assert_vague(status: &Status) {
    let heard = (status.code(), status.message(), reason(status));
    assert_eq!(
        heard,
        (
            Code::PermissionDenied,
            "the registration is refused",
            "refused".to_owned()
        )
    );
}

/// A worker's key, and the certificate for it.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) key: Arc<KeyPair>,
    pub(crate) chain: Vec<Vec<u8>>,
}

pub(crate) fn new_key() -> Arc<KeyPair> {
    Arc::new(KeyPair::generate().expect("made"))
}

/// A request for a certificate, signed by its own key.
pub(crate) fn request(key: &KeyPair) -> Vec<u8> {
    let params = CertificateParams::default();
    params.serialize_request(key).expect("signed").der().to_vec()
}

/// TLS 1.3 of a client that trusts one root.
pub(crate) fn trusting(
    root_pem: &str,
) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(root_pem.as_bytes()).expect("PEM");
    roots.add(root).expect("a certificate");
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(roots)
}

impl Identity {
    /// TLS with this identity.
    pub(crate) fn tls(&self, root_pem: &str) -> ClientConfig {
        let chain = self.chain.iter().cloned().map(CertificateDer::from).collect();
        let key = PrivatePkcs8KeyDer::from(self.key.serialize_der());
        trusting(root_pem)
            .with_client_auth_cert(chain, key.into())
            .expect("fits")
    }
}

/// A gRPC connection over TLS.
pub(crate) async fn channel(
    address: SocketAddr,
    name: String,
    mut config: ClientConfig,
) -> Result<Channel, tonic::transport::Error> {
    config.alpn_protocols = vec![b"h2".to_vec()];
    let config = Arc::new(config);
    let uri = format!("http://{name}");
    let connector = tower::service_fn(move |_: http::Uri| {
        let (connector, name) = (TlsConnector::from(Arc::clone(&config)), name.clone());
        async move {
            let stream = TcpStream::connect(address).await?;
            let name = ServerName::try_from(name).map_err(std::io::Error::other)?;
            connector.connect(name, stream).await.map(TokioIo::new)
        }
    });
    let endpoint = Endpoint::from_shared(uri).expect("a URI");
    endpoint.connect_with_connector(connector).await
}

impl World {
    pub(crate) async fn channel(&self, identity: Option<&Identity>) -> Channel {
        let root = self.authority.root_pem();
        let config = match identity {
            Some(identity) => identity.tls(root),
            None => trusting(root).with_no_client_auth(),
        };
        channel(self.address, self.authority.server_name(), config)
            .await
            .expect("connected")
    }

    pub(crate) async fn agent(&self, identity: Option<&Identity>) -> Agent {
        Agent::new(self.channel(identity).await)
    }

    /// Redeems a password over a connection of its own.
    pub(crate) async fn redeem(&self, otp: &str, csr_der: Vec<u8>) -> Result<Vec<Vec<u8>>, Status> {
        redeem(&mut self.agent(None).await, otp, csr_der).await
    }

    /// Registers the machine for a new job.
    pub(crate) async fn registered(&self) -> (Machine, Identity) {
        let machine = self.machine().await;
        let key = new_key();
        let chain = self
            .redeem(&machine.otp, request(&key))
            .await
            .expect("registered");
        (machine, Identity { key, chain })
    }

    /// Asks for the next certificate.
    pub(crate) async fn renew(&self, shown: &Identity, key: &Arc<KeyPair>) -> Result<Identity, Status> {
        let csr_der = request(key);
        let mut agent = self.agent(Some(shown)).await;
        let renewed = agent
            .renew_certificate(v1::RenewCertificateRequest { csr_der })
            .await?;
        Ok(Identity {
            key: Arc::clone(key),
            chain: renewed.into_inner().certificate_chain_der,
        })
    }

    /// Tries to open a session and an output stream: both are refused, with this reason.
    pub(crate) async fn assert_no_streams(&self, identity: &Identity, why: &str) {
        let session = Session::begin(self, identity, Vec::new())
            .await
            .err()
            .expect("no session");
        let output = OutputStream::begin(self, identity)
            .await
            .err()
            .expect("no output");
        for status in [session, output] {
            assert_eq!(
                (status.code(), reason(&status).as_str()),
                (Code::Unauthenticated, why)
            );
        }
    }
}

pub(crate) async fn redeem(agent: &mut Agent, otp: &str, csr_der: Vec<u8>) -> Result<Vec<Vec<u8>>, Status> {
    let message = v1::RegisterWorkerRequest {
        otp: otp.to_owned(),
        csr_der,
    };
    let answer = agent.register_worker(message).await?;
    Ok(answer.into_inner().certificate_chain_der)
}

/// A worker's session, frame by frame.
pub(crate) struct Session {
    say: mpsc::Sender<v1::WorkerFrame>,
    hear: Streaming<v1::ServerFrame>,
}

impl Session {
    pub(crate) async fn begin(
        world: &World,
        identity: &Identity,
        held: Vec<v1::HeldAttempt>,
    ) -> Result<Self, Status> {
        let mut agent = world.agent(Some(identity)).await;
        let (say, said) = mpsc::channel(16);
        let hello = v1::Hello {
            cpu_millis: 1_000,
            memory_bytes: 1 << 30,
            slots: 1,
            held,
            ..v1::Hello::default()
        };
        let hello = v1::WorkerFrame {
            frame: Some(WorkerKind::Hello(hello)),
        };
        say.send(hello).await.expect("open");
        let hear = agent.connect(ReceiverStream::new(said)).await?.into_inner();
        let mut session = Self { say, hear };
        match session.next().await? {
            ServerKind::Welcome(welcome) if welcome.session > 0 => Ok(session),
            other => panic!("no welcome: {other:?}"),
        }
    }

    pub(crate) async fn say(&self, frame: WorkerKind) {
        let frame = v1::WorkerFrame { frame: Some(frame) };
        // A session that has ended is noticed by who listens.
        let _over = self.say.send(frame).await;
    }

    pub(crate) async fn next(&mut self) -> Result<ServerKind, Status> {
        let heard = tokio::time::timeout(PATIENCE, self.hear.message())
            .await
            .expect("in time")?;
        heard
            .and_then(|frame| frame.frame)
            .ok_or_else(|| Status::cancelled("the stream ended"))
    }

    /// Waits for a frame, past all others.
    pub(crate) async fn hears<T>(&mut self, is: impl Fn(ServerKind) -> Option<T>) -> T {
        loop {
            if let Some(heard) = is(self.next().await.expect("open")) {
                return heard;
            }
        }
    }

    pub(crate) async fn assigned(&mut self) -> v1::AttemptKey {
        let assign = self.hears(|frame| match frame {
            ServerKind::Assign(assign) => assign.key,
            _ => None,
        });
        assign.await
    }

    pub(crate) async fn verdict(&mut self) -> v1::ResultVerdict {
        let answer = self.hears(|frame| match frame {
            ServerKind::Result(answer) => Some(answer.verdict()),
            _ => None,
        });
        answer.await
    }

    /// The session is as it should be: a beat is recorded and answered.
    pub(crate) async fn beats(&mut self, n: u64) {
        self.say(WorkerKind::Beat(v1::Beat { n })).await;
        self.hears(|frame| matches!(frame, ServerKind::Beat(beat) if beat.n == n).then_some(()))
            .await;
    }

    /// Waits until the server has ended the stream.
    pub(crate) async fn ended(&mut self, within: Duration) -> Status {
        let ending = async {
            loop {
                if let Err(status) = self.next().await {
                    return status;
                }
            }
        };
        tokio::time::timeout(within, ending)
            .await
            .expect("the session ends in time")
    }
}

/// A worker's output stream.
pub(crate) struct OutputStream {
    say: mpsc::Sender<v1::OutputBatch>,
    hear: Streaming<v1::OutputAnswer>,
}

impl OutputStream {
    pub(crate) async fn begin(world: &World, identity: &Identity) -> Result<Self, Status> {
        let mut agent = world.agent(Some(identity)).await;
        let (say, said) = mpsc::channel(16);
        let hear = agent.stream_output(ReceiverStream::new(said)).await?.into_inner();
        Ok(Self { say, hear })
    }

    pub(crate) async fn say(&self, key: v1::AttemptKey, start: u64, data: &'static [u8]) {
        let run = v1::OutputRun {
            stream: v1::Stream::Stdout.into(),
            length: data.len() as u64,
            at_ms: 1,
        };
        let piece = v1::OutputPiece {
            start,
            data: data.into(),
            runs: vec![run],
        };
        let batch = v1::OutputBatch {
            key: Some(key),
            piece: Some(piece),
        };
        let _over = self.say.send(batch).await;
    }

    /// The next answer, or the end.
    pub(crate) async fn next(&mut self, within: Duration) -> Result<Option<v1::OutputAnswer>, Status> {
        tokio::time::timeout(within, self.hear.message())
            .await
            .expect("the output stream answers in time")
    }
}

pub(crate) fn running(key: &v1::AttemptKey) -> WorkerKind {
    WorkerKind::Running(v1::AttemptRunning {
        key: Some(key.clone()),
        started_at_ms: 5,
    })
}

pub(crate) fn result(key: &v1::AttemptKey, exit_code: i32) -> WorkerKind {
    WorkerKind::Result(v1::AttemptResult {
        key: Some(key.clone()),
        kind: v1::EndKind::Exited.into(),
        exit_code: Some(exit_code),
        started_at_ms: 5,
        ended_at_ms: 7,
        ..v1::AttemptResult::default()
    })
}

/// Waits until a revoked worker is out: nothing of it is served, and its machine is destroyed.
pub(crate) async fn assert_cast_out(world: &World, machine: &Machine, identity: &Identity) {
    world.assert_no_streams(identity, "unauthenticated").await;
    let renewed = world.renew(identity, &new_key()).await;
    let refused = renewed.err().expect("no renewal");
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::PermissionDenied, "refused")
    );
    tokio::time::timeout(PATIENCE, world.provider.destroyed(machine.worker))
        .await
        .expect("destroyed in time");
    eventually("the worker's end", async || {
        let record = world.platform.workers.get(machine.worker).await.expect("read")?;
        record.ended_at_ms
    })
    .await;
}
