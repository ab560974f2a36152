//! The way to a server: gRPC over HTTP/2 over TLS 1.3, verified against the bootstrap document's roots alone.
//!
//! Invariants: key and certificate are in memory only; a new connection is made per call and two per session, one for
//! frames and one for output, so that a flood of output never delays a beat; a dead connection is noticed within 15 s.

pub mod convert;
mod streams;
mod tls;

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use hodei_jobs::transport::MAX_WORKER_MESSAGE_BYTES;
use hodei_jobs::v1::worker_agent_service_client::WorkerAgentServiceClient;
use hodei_jobs::v1::{RegisterWorkerRequest, RenewCertificateRequest};
use hodei_shared::ids::AttemptKey;
use hodei_shared::secret::SecretString;
use hodei_worker_application::ports::{CertificateLife, Connector, DialError, Endpoint, Input, Link};
use hodei_worker_domain::frame::{Hello, WorkerFrame};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};
use tonic::transport::Channel;

use self::streams::{Receiving, Sending};
use self::tls::Identity;

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_LIMIT: Duration = Duration::from_secs(10);

type Client = WorkerAgentServiceClient<Channel>;

/// Reaches servers by gRPC.
pub struct GrpcConnector {
    identity: Identity,
    server_name: String,
    sockets: tls::SocketFolder,
    certificate: Mutex<Vec<Vec<u8>>>,
    /// The newest session's connection for output; input comes the other way on it.
    input: Mutex<Option<Client>>,
}

impl GrpcConnector {
    /// A connector with a fresh key, which trusts `root_certificates` (PEM) and servers named `server_name`. A folder
    /// of `socket` is kept open.
    ///
    /// # Errors
    /// [`io::Error`] if a root can not be read or the key not be made.
    pub fn new(root_certificates: &str, server_name: &str, socket: Option<&str>) -> io::Result<Self> {
        Ok(Self {
            identity: Identity::new(root_certificates, server_name)?,
            server_name: server_name.to_owned(),
            sockets: tls::SocketFolder::open(socket),
            certificate: Mutex::default(),
            input: Mutex::default(),
        })
    }

    async fn client(&self, endpoint: &Endpoint) -> Result<Client, DialError> {
        let chain = self
            .certificate
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let config = self.identity.client_config(chain).map_err(unavailable)?;
        let name = self.identity.server_name();
        let target = match endpoint {
            Endpoint::Socket(path) => Endpoint::Socket(self.sockets.path(path)),
            address => address.clone(),
        };
        let connector = tower::service_fn(move |_: http::Uri| {
            let (target, name) = (target.clone(), name.clone());
            let tls = tokio_rustls::TlsConnector::from(Arc::clone(&config));
            async move {
                let stream: Box<dyn tls::Stream> = match target {
                    Endpoint::Socket(path) => Box::new(UnixStream::connect(path).await?),
                    Endpoint::Address(address) => {
                        let address: std::net::SocketAddr = address.parse().map_err(io::Error::other)?;
                        let stream = TcpStream::connect(address).await?;
                        stream.set_nodelay(true)?;
                        Box::new(stream)
                    }
                };
                Ok::<_, io::Error>(TokioIo::new(tls.connect(name, stream).await?))
            }
        });
        // TLS is the connector's; the name here is only what the requests are addressed to.
        let uri = |scheme: &str| {
            format!("{scheme}://{}", self.server_name)
                .parse()
                .map_err(unavailable)
        };
        let channel = Channel::builder(uri("http")?)
            .origin(uri("https")?)
            .connect_timeout(CONNECT_LIMIT)
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_LIMIT)
            .keep_alive_while_idle(true)
            .connect_with_connector(connector)
            .await
            .map_err(|error| DialError::Unavailable(causes(&error)))?;
        Ok(Client::new(channel)
            .max_decoding_message_size(MAX_WORKER_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_WORKER_MESSAGE_BYTES))
    }

    fn keep(&self, chain: Vec<Vec<u8>>) -> Result<CertificateLife, DialError> {
        let life = tls::life_of(&chain).map_err(unavailable)?;
        *self.certificate.lock().unwrap_or_else(PoisonError::into_inner) = chain;
        Ok(life)
    }

    fn request(&self) -> Result<Vec<u8>, DialError> {
        self.identity.signing_request().map_err(unavailable)
    }
}

#[async_trait]
impl Connector for GrpcConnector {
    async fn register(&self, endpoint: &Endpoint, otp: &SecretString) -> Result<CertificateLife, DialError> {
        let request = RegisterWorkerRequest {
            otp: otp.expose().to_owned(),
            csr_der: self.request()?,
        };
        let answer = self.client(endpoint).await?.register_worker(request).await;
        self.keep(
            answer
                .map_err(|status| convert::error(&status))?
                .into_inner()
                .certificate_chain_der,
        )
    }

    async fn renew(&self, endpoint: &Endpoint) -> Result<CertificateLife, DialError> {
        let request = RenewCertificateRequest {
            csr_der: self.request()?,
        };
        let answer = self.client(endpoint).await?.renew_certificate(request).await;
        self.keep(
            answer
                .map_err(|status| convert::error(&status))?
                .into_inner()
                .certificate_chain_der,
        )
    }

    async fn read_input(&self, key: AttemptKey, offset: u64) -> Result<Input, DialError> {
        let client = self.input.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut client = client.ok_or_else(|| unavailable("no session"))?;
        let request = convert::input_request(key, offset);
        let answer = client.read_input(request).await;
        convert::input(answer.map_err(|status| convert::error(&status))?.into_inner())
            .ok_or_else(|| unavailable("an answer without a verdict"))
    }

    async fn connect(&self, endpoint: &Endpoint, hello: Hello) -> Result<Link, DialError> {
        let (frames, output) = tokio::try_join!(self.client(endpoint), self.client(endpoint))?;
        let first = convert::worker_frame(WorkerFrame::Hello(hello));
        let (frames_out, requests) = Sending::new(convert::worker_frame, Some(first));
        let mut client = frames;
        let frames_in = Receiving::new(
            Box::pin(async move { client.connect(requests).await }),
            convert::server_frame,
        );
        let (output_out, requests) = Sending::new(convert::output_batch, None);
        *self.input.lock().unwrap_or_else(PoisonError::into_inner) = Some(output.clone());
        let mut client = output;
        let output_in = Receiving::new(
            Box::pin(async move { client.stream_output(requests).await }),
            convert::output_answer,
        );
        Ok(Link {
            frames_out: Box::new(frames_out),
            frames_in: Box::new(frames_in),
            output_out: Box::new(output_out),
            output_in: Box::new(output_in),
        })
    }
}

fn unavailable(error: impl std::fmt::Display) -> DialError {
    DialError::Unavailable(error.to_string())
}

/// An error with its causes; tonic's own display shows none.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
