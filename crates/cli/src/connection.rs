//! The connection to a server: sockets, TLS, the token, and calls that outlast a short absence of the server.

use std::future::Future;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use hodei_jobs::transport::MAX_CLIENT_MESSAGE_BYTES;
use hodei_jobs::v1;
use hodei_jobs::v1::job_execution_service_client::JobExecutionServiceClient;
use hodei_jobs::v1::log_stream_service_client::LogStreamServiceClient;
use hodei_jobs::v1::scheduler_service_client::SchedulerServiceClient;
use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::{TcpStream, UnixStream};
use tonic::metadata::AsciiMetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::discovery::{self, Address, Server};
use crate::errors::{self, is_transient};

/// How long a call goes on while the server is away.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest that one call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// A channel that sends the token.
pub(crate) type Transport = InterceptedService<Channel, Bearer>;

/// The services of one server.
#[derive(Clone)]
pub(crate) struct Client {
    /// Queues and watches jobs.
    pub(crate) jobs: JobExecutionServiceClient<Transport>,
    /// Reads output.
    pub(crate) logs: LogStreamServiceClient<Transport>,
    /// Explains, and lists workers and providers.
    pub(crate) scheduler: SchedulerServiceClient<Transport>,
}

/// Adds `authorization: Bearer …` to each call.
#[derive(Clone)]
pub(crate) struct Bearer(Option<AsciiMetadataValue>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

impl Client {
    /// Connects now; later the connection is made anew whenever it broke.
    ///
    /// # Errors
    /// If nobody answers, the socket belongs to another user, or the certificate can not be verified.
    pub(crate) async fn connect(server: &Server, uid: u32) -> Result<Self> {
        let channel = channel(&server.address, uid).await?;
        let token = server.token.required()?.map(|token| {
            let mut value = AsciiMetadataValue::try_from(format!("Bearer {}", token.expose()))
                .map_err(|_| anyhow!("the token has characters that no token has; look at HODEI_TOKEN"))?;
            value.set_sensitive(true);
            anyhow::Ok(value)
        });
        let transport = InterceptedService::new(channel, Bearer(token.transpose()?));
        Ok(Self::over(transport))
    }

    /// The services over `transport`.
    pub(crate) fn over(transport: Transport) -> Self {
        Self {
            jobs: JobExecutionServiceClient::new(transport.clone())
                .max_decoding_message_size(MAX_CLIENT_MESSAGE_BYTES),
            logs: LogStreamServiceClient::new(transport.clone())
                .max_decoding_message_size(MAX_CLIENT_MESSAGE_BYTES),
            scheduler: SchedulerServiceClient::new(transport)
                .max_decoding_message_size(MAX_CLIENT_MESSAGE_BYTES),
        }
    }

    /// The services over a channel without a token.
    #[cfg(test)]
    pub(crate) fn over_channel(channel: Channel) -> Self {
        Self::over(InterceptedService::new(channel, Bearer(None)))
    }

    /// Queues a job; sent again with the same request id while the server is away for a moment.
    ///
    /// # Errors
    /// If the job is refused or the server stays away.
    pub(crate) async fn queue(&self, request: v1::QueueJobRequest) -> Result<v1::Job> {
        let answer = call(
            "queue the job",
            &self.jobs,
            &request,
            |mut service, request| async move { service.queue_job(request).await },
        )
        .await?;
        answer
            .job
            .context("the server queued a job and did not say which")
    }

    /// One job.
    ///
    /// # Errors
    /// If there is none with this id, or the server stays away.
    pub(crate) async fn job(&self, job_id: &str) -> Result<v1::Job> {
        let request = v1::GetJobRequest {
            job_id: job_id.to_owned(),
        };
        let answer = call(
            &format!("get job {job_id}"),
            &self.jobs,
            &request,
            |mut service, request| async move { service.get_job(request).await },
        )
        .await?;
        answer
            .job
            .with_context(|| format!("the server answered nothing about job {job_id}"))
    }

    /// Asks to cancel a job.
    ///
    /// # Errors
    /// If there is none with this id, it may not be cancelled, or the server stays away.
    pub(crate) async fn cancel(&self, job_id: &str, reason: &str) -> Result<v1::Job> {
        let request = v1::CancelJobRequest {
            job_id: job_id.to_owned(),
            reason: reason.to_owned(),
        };
        let answer = call(
            &format!("cancel job {job_id}"),
            &self.jobs,
            &request,
            |mut service, request| async move { service.cancel_job(request).await },
        )
        .await?;
        answer
            .job
            .with_context(|| format!("the server answered nothing about job {job_id}"))
    }
}

/// Makes an idempotent call, again for [`PATIENCE`] while the server is away. `what` completes "can not …".
///
/// # Errors
/// What the server answered, in words for people.
pub(crate) async fn call<S, M, T, F>(
    what: &str,
    service: &S,
    message: &M,
    method: impl Fn(S, Request<M>) -> F,
) -> Result<T>
where
    S: Clone,
    M: Clone,
    F: Future<Output = Result<tonic::Response<T>, Status>>,
{
    let end = tokio::time::Instant::now() + PATIENCE;
    let mut pause = Duration::from_millis(50);
    loop {
        let mut request = Request::new(message.clone());
        request.set_timeout(CALL_TIMEOUT);
        match method(service.clone(), request).await {
            Ok(answer) => return Ok(answer.into_inner()),
            Err(status) if is_transient(&status) && tokio::time::Instant::now() + pause < end => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(1));
            }
            Err(status) => return Err(errors::explain(what, &status)),
        }
    }
}

async fn channel(address: &Address, uid: u32) -> Result<Channel> {
    match address {
        Address::Socket(path) => {
            // A first look of our own tells apart what the transport's error would hide.
            match connect_socket(path, uid).await {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    return Err(discovery::nobody_listens(path));
                }
                first => drop(first.with_context(|| format!("can not use the socket {}", path.display()))?),
            }
            let path: Arc<Path> = path.as_path().into();
            let endpoint = endpoint(Uri::from_static("http://localhost"));
            connected(address, endpoint, move |_| {
                let path = path.clone();
                async move { connect_socket(&path, uid).await }
            })
            .await
        }
        Address::Plain(uri) => connected(address, endpoint(uri.clone()), |uri| connect_tcp(uri, 80)).await,
        Address::Tls { uri, ca_file } => {
            let tls = tokio_rustls::TlsConnector::from(Arc::new(tls_config(ca_file)?));
            // The transport sees http because the connector encrypts by itself.
            let plain = http_form(uri).context("the URL has no host")?;
            connected(address, endpoint(plain), move |uri| {
                let tls = tls.clone();
                async move {
                    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
                    let name = ServerName::try_from(host).map_err(io::Error::other)?;
                    tls.connect(name, connect_tcp(uri, 443).await?).await
                }
            })
            .await
        }
    }
}

fn http_form(uri: &Uri) -> Option<Uri> {
    let authority = uri.authority()?;
    let with_port = match authority.port() {
        Some(_) => authority.to_string(),
        None => format!("{authority}:443"),
    };
    format!("http://{with_port}").parse().ok()
}

fn endpoint(uri: Uri) -> Endpoint {
    Endpoint::from(uri)
        .connect_timeout(Duration::from_secs(10))
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(15))
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .user_agent(concat!("hodei/", env!("CARGO_PKG_VERSION")))
        .expect("the name and version are printable ASCII")
}

async fn connected<C, F, S>(address: &Address, endpoint: Endpoint, mut connect: C) -> Result<Channel>
where
    C: FnMut(Uri) -> F + Send + 'static,
    F: Future<Output = io::Result<S>> + Send + 'static,
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let connector = tower::service_fn(move |uri| {
        let stream = connect(uri);
        async move { stream.await.map(TokioIo::new) }
    });
    let channel = endpoint.connect_with_connector(connector).await;
    channel.map_err(|error| {
        anyhow!(
            "can not reach the server at {address}: {}\nLook whether it runs, and at --server and HODEI_SERVER",
            errors::deepest(&error)
        )
    })
}

async fn connect_tcp(uri: Uri, default_port: u16) -> io::Result<TcpStream> {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(default_port))).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Connects to a socket and refuses it if its owner is neither `uid` nor root.
async fn connect_socket(path: &Path, uid: u32) -> io::Result<UnixStream> {
    /// What fits into `sun_path` with its final zero.
    const LONGEST: usize = 107;
    let stream = match path.parent().zip(path.file_name()) {
        Some((folder, name)) if path.as_os_str().len() > LONGEST => {
            let folder = std::fs::File::open(folder)?;
            let short = Path::new("/proc/self/fd")
                .join(folder.as_raw_fd().to_string())
                .join(name);
            UnixStream::connect(short).await?
        }
        _ => UnixStream::connect(path).await?,
    };
    let peer = stream.peer_cred()?.uid();
    if peer != uid && peer != 0 {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!(
                "the server behind it runs as user {peer}, who is neither you nor root; no token is sent to it"
            ),
        ));
    }
    Ok(stream)
}

fn tls_config(ca_file: &Path) -> Result<rustls::ClientConfig> {
    let what = || {
        format!(
            "can not read certificates from {} (HODEI_CA_FILE)",
            ca_file.display()
        )
    };
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca_file).with_context(what)? {
        roots.add(certificate.with_context(what)?).with_context(what)?;
    }
    if roots.is_empty() {
        return Err(anyhow!("there is no certificate in it").context(what()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .context("TLS 1.3 is not available")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_long_socket_path_is_reached_and_a_stale_one_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let deep = folder.path().join("d".repeat(120));
        std::fs::create_dir(&deep).expect("created");
        let open = std::fs::File::open(&deep).expect("opened");
        let short = format!("/proc/self/fd/{}/client.sock", open.as_raw_fd());
        let listener = tokio::net::UnixListener::bind(short).expect("bound");
        let path = deep.join("client.sock");
        let uid = rustix::process::geteuid().as_raw();
        connect_socket(&path, uid).await.expect("connected");
        if uid != 0 {
            let error = connect_socket(&path, uid + 1).await.expect_err("another user");
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        }
        drop(listener);
        let server = Server {
            address: Address::Socket(path),
            token: discovery::Token::None,
        };
        let error = Client::connect(&server, uid).await.err().expect("nobody listens");
        assert!(error.to_string().contains("no server runs"), "{error:#}");
    }

    #[test]
    fn certificates_come_from_one_file_only() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let error = tls_config(file.path()).expect_err("no certificate");
        assert!(format!("{error:#}").contains("HODEI_CA_FILE"), "{error:#}");
        assert!(tls_config(Path::new("/nowhere.pem")).is_err());
    }
}
