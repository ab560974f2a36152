//! Listeners, TLS and limits of connections.
//!
//! Each connection is a task of its own from the first byte on: no handshake and no slow client holds up the
//! next accept. Connections are bounded in number, those without credentials apart from the others (`room`);
//! each has a deadline for its handshake, bounds on headers, streams and buffers, and is pinged while it lives.
//! A door closes gracefully: no new connections, then no new requests, then, at the deadline, no connections.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::Request;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service as _;

use crate::peer::{Connection, Peer, WorkerCertificate};
use crate::room::{OpenRequest, Place, Room};

/// Bounds of a door.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How many connections at once that have shown a valid credential; [`Limits::strangers`] come on top.
    pub connections: usize,
    /// How long a TLS handshake may take.
    pub handshake: Duration,
    /// How long a connection may stay without a request while it has shown no valid credential.
    pub stranger_idle: Duration,
    /// How long it may stay so in all, if that is bounded.
    pub stranger_life: Option<Duration>,
    /// How long a call of a client may take that has one answer; streams go on.
    pub call: Duration,
    /// How long the header of an HTTP/1 request may take.
    pub header: Duration,
    /// How many requests at once on one connection.
    pub streams: u32,
    /// How long a silent peer is believed to be there, twice: until a ping, and until its answer.
    pub silence: Duration,
    /// How long open requests may go on when the door closes.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4_096,
            handshake: Duration::from_secs(10),
            stranger_idle: Duration::from_secs(30),
            stranger_life: None,
            call: Duration::from_secs(30),
            header: Duration::from_secs(10),
            streams: 256,
            silence: Duration::from_secs(20),
            drain: Duration::from_secs(5),
        }
    }
}

impl Limits {
    /// The most connections without a valid credential at once. When there are as many, the oldest makes way.
    pub const MAX_STRANGERS: usize = 256;

    /// The bounds of a door of workers: nobody has a reason to stay there without a certificate.
    pub fn of_workers() -> Self {
        Self {
            stranger_life: Some(Duration::from_secs(60)),
            ..Self::default()
        }
    }

    /// How many connections at once that have shown no valid credential.
    pub fn strangers(&self) -> usize {
        (self.connections / 4).clamp(1, Self::MAX_STRANGERS)
    }
}

const MAX_HEADER_BYTES: u32 = 16 << 10;
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
const MAX_SEND_BUFFER_BYTES: usize = 256 << 10;
/// How long to wait after an accept that failed, for want of descriptors as a rule.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How much is read from somebody who speaks plain HTTP to a door with TLS.
const MAX_PLAIN_BYTES: u64 = 64 << 10;
/// What they are answered.
const TLS_HINT: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n\
    This port speaks TLS only: clients connect with https://, and the port of workers is for workers.\n";

/// A bound listener.
#[derive(Debug)]
pub enum Listener {
    /// On the network.
    Tcp(TcpListener),
    /// On this machine.
    Unix(UnixListener),
}

impl Listener {
    /// Binds a socket of this machine, mode 0600. What an earlier process left there is removed: the caller holds
    /// the lock of the folder.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn unix(path: &Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self::Unix(listener))
    }

    /// Binds an address; port 0 takes a free one.
    ///
    /// # Errors
    /// What the operating system says.
    pub async fn tcp(address: SocketAddr) -> io::Result<Self> {
        TcpListener::bind(address).await.map(Self::Tcp)
    }

    /// The bound address; `None` for a socket of this machine.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn address(&self) -> io::Result<Option<SocketAddr>> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(Some),
            Self::Unix(_) => Ok(None),
        }
    }
}

/// A listener with what is behind it.
pub struct Door {
    /// For logs.
    pub name: &'static str,
    /// Where it listens.
    pub listener: Listener,
    /// TLS; `None`: plain HTTP.
    pub tls: Option<Arc<ServerConfig>>,
    /// What it serves.
    pub router: Router,
    /// Its bounds.
    pub limits: Limits,
}

impl Door {
    /// Serves until `closing`, then drains: requests that are open may end until the drain's deadline. Returns
    /// when no connection is left.
    pub async fn serve(self, closing: CancellationToken) {
        let Self {
            name,
            listener,
            tls,
            router,
            limits,
        } = self;
        let room = Room::new(name, limits.connections, limits.strangers());
        let drain = limits.drain;
        let kill = CancellationToken::new();
        let tracker = TaskTracker::new();
        let entrance = Entrance {
            tls: tls.map(TlsAcceptor::from),
            router,
            limits,
            closing: closing.clone(),
            kill: kill.clone(),
        };
        let mut failing = false;
        loop {
            let accepted = tokio::select! {
                biased;
                () = closing.cancelled() => break,
                accepted = accept(&listener) => accepted,
            };
            match accepted {
                Ok((socket, peer)) => {
                    failing = false;
                    let (entrance, place) = (entrance.clone(), room.enter());
                    tracker.spawn(async move { entrance.enter(socket, peer, place).await });
                    // Who made way closes first, so that a flood does not use up the descriptors.
                    tokio::task::yield_now().await;
                }
                // It went away before it was accepted.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    if !failing {
                        tracing::warn!(door = name, %error, "accept fails; it is tried again until it succeeds");
                    }
                    failing = true;
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(listener);
        tracker.close();
        if tokio::time::timeout(drain, tracker.wait()).await.is_err() {
            kill.cancel();
            tracker.wait().await;
        }
    }
}

/// A connection as it was accepted.
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Socket {
    fn into_stream(self) -> Box<dyn Stream> {
        match self {
            Self::Tcp(stream) => Box::new(stream),
            Self::Unix(stream) => Box::new(stream),
        }
    }
}

async fn accept(listener: &Listener) -> io::Result<(Socket, Peer)> {
    match listener {
        Listener::Tcp(listener) => {
            let (stream, remote) = listener.accept().await?;
            // It fails only for a connection that has gone, and reading says so.
            let _ = stream.set_nodelay(true);
            let local = stream.local_addr()?;
            Ok((Socket::Tcp(stream), Peer::Tcp { remote, local }))
        }
        Listener::Unix(listener) => {
            let (stream, _) = listener.accept().await?;
            let uid = stream.peer_cred().ok().map(|cred| cred.uid());
            Ok((Socket::Unix(stream), Peer::Unix { uid }))
        }
    }
}

#[derive(Clone)]
struct Entrance {
    tls: Option<TlsAcceptor>,
    router: Router,
    limits: Limits,
    closing: CancellationToken,
    kill: CancellationToken,
}

impl Entrance {
    /// Serves a connection to its end, or for as long as a stranger may stay.
    async fn enter(&self, socket: Socket, peer: Peer, place: Arc<Place>) {
        let Limits {
            stranger_idle,
            stranger_life,
            ..
        } = self.limits;
        tokio::select! {
            biased;
            why = place.overstays(stranger_idle, stranger_life) => {
                tracing::debug!(?peer, ?why, "a connection without credentials was closed");
            }
            () = self.welcome(socket, peer, Arc::clone(&place)) => {}
        }
    }

    async fn welcome(&self, socket: Socket, peer: Peer, place: Arc<Place>) {
        let Some(acceptor) = &self.tls else {
            let connection = Connection::new(peer, None, place);
            return self.serve(socket.into_stream(), connection).await;
        };
        let shaken = tokio::select! {
            biased;
            () = self.closing.cancelled() => return,
            shaken = tokio::time::timeout(self.limits.handshake, shake(acceptor, socket)) => shaken,
        };
        let stream = match shaken {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::debug!(?peer, %error, "handshake failed");
                return;
            }
            Err(_) => {
                tracing::debug!(?peer, "handshake took too long");
                return;
            }
        };
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let worker = match shown.map(|leaf| WorkerCertificate::read(leaf)).transpose() {
            Ok(worker) => worker,
            Err(error) => {
                tracing::warn!(?peer, %error, "connection refused");
                return;
            }
        };
        self.serve(stream, Connection::new(peer, worker, place)).await;
    }

    async fn serve(&self, stream: impl Stream + 'static, connection: Connection) {
        let router = self.router.clone();
        let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
            let open = connection.open_request();
            request.extensions_mut().insert(connection.clone());
            let answering = router.clone().call(request);
            async move {
                let answer = answering.await?;
                Ok::<_, Infallible>(match open {
                    Some(open) => answer.map(|body| until_sent(body, open)),
                    None => answer,
                })
            }
        });
        let builder = self.builder();
        let mut serving = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let mut closes = false;
        loop {
            tokio::select! {
                biased;
                () = self.kill.cancelled() => return,
                served = serving.as_mut() => {
                    if let Err(error) = served {
                        tracing::debug!(%error, "connection ended");
                    }
                    return;
                }
                () = self.closing.cancelled(), if !closes => {
                    closes = true;
                    serving.as_mut().graceful_shutdown();
                }
            }
        }
    }

    fn builder(&self) -> Builder<TokioExecutor> {
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.header)
            .max_buf_size(64 << 10);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.limits.streams)
            .max_header_list_size(MAX_HEADER_BYTES)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_send_buf_size(MAX_SEND_BUFFER_BYTES)
            .keep_alive_interval(self.limits.silence)
            .keep_alive_timeout(self.limits.silence);
        builder
    }
}

/// The same body, which keeps its request open until it is sent or given up.
fn until_sent(body: Body, open: OpenRequest) -> Body {
    Body::new(body.map_err(move |error| {
        let _ = &open;
        error
    }))
}

/// Does the handshake. Whoever speaks plain HTTP is told so, and is an error.
async fn shake(acceptor: &TlsAcceptor, socket: Socket) -> io::Result<TlsStream<Box<dyn Stream>>> {
    if let Socket::Tcp(stream) = &socket {
        let mut first = [0];
        stream.peek(&mut first).await?;
        // A TLS record begins with 22, a request of HTTP/1 or HTTP/2 with a letter.
        if first[0].is_ascii_alphabetic() {
            hint(socket.into_stream()).await?;
            return Err(io::Error::other("plain HTTP where TLS is spoken"));
        }
    }
    acceptor.accept(socket.into_stream()).await
}

async fn hint(mut stream: Box<dyn Stream>) -> io::Result<()> {
    stream.write_all(TLS_HINT).await?;
    stream.shutdown().await?;
    // Closed with bytes unread, the connection would be reset, and the answer lost with it.
    tokio::io::copy(&mut stream.take(MAX_PLAIN_BYTES), &mut tokio::io::sink()).await?;
    Ok(())
}
