//! Who may call what: the first thing that happens to every request.
//!
//! The table of all methods ([`hodei_server_domain::access::table`]) is asked by path. What it does not name is
//! not served. Identities are made here, from tokens and certificates, and handed on as request extensions;
//! nothing that a request brings can make one. Every bad token hears the same.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use hodei_jobs::transport::MAX_REGISTER_BYTES;
use hodei_server_application::access;
use hodei_server_application::platform::Platform;
use hodei_server_application::refused::Refused;
use hodei_server_application::workers::{self, RegisterError, RenewError};
use hodei_server_domain::access::Principal;
use hodei_server_domain::access::table::{self, Access, CLIENT_DOOR, WORKER_DOOR};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Limited};
use tokio::sync::Semaphore;
use tonic::{Code, Status};

use crate::grpc::errors::{plain, register_status, renew_status, status};
use crate::peer::{Connection, Peer, WorkerCertificate};
use crate::room::NoRoom;

/// How long a worker without a usable certificate may take for its one request.
const STRANGER_DEADLINE: Duration = Duration::from_secs(10);
/// How many of them at once.
const STRANGERS: usize = 32;
/// The methods of the client door that answer with a stream. Even its beginning may be far off: output is waited for
/// until the job starts.
pub(crate) const STREAMING: [&str; 2] = [
    "/hodei.v1.JobExecutionService/WatchJob",
    "/hodei.v1.LogStreamService/ReadOutput",
];
/// Where the outcome of a gRPC call is said: in the head if there is no message, else after it.
const GRPC_STATUS: &str = "grpc-status";
/// Frame header of a gRPC message.
const FRAME_BYTES: usize = 5;

/// The names under which HTTP is answered over the network, beside the address that was connected to.
#[derive(Debug, Clone, Default)]
pub struct HostNames(BTreeSet<String>);

impl HostNames {
    /// Knows `localhost` and `names`.
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        let lower = names.into_iter().map(|name| name.to_ascii_lowercase());
        Self(lower.chain(["localhost".to_owned()]).collect())
    }

    /// Whether a request over `peer` names this server. Web pages of others that had their name point here are
    /// turned away by this (DNS rebinding).
    fn knows(&self, peer: Peer, uri: &Uri, headers: &HeaderMap) -> bool {
        let Peer::Tcp { local, .. } = peer else {
            return true;
        };
        let header = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let Some(host) = uri.host().or_else(|| header.map(without_port)) else {
            return false;
        };
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let same = bare
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.to_canonical() == local.ip().to_canonical());
        same || self.0.contains(&host.to_ascii_lowercase())
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

/// The client door's guard.
pub(crate) struct ClientGuard {
    pub(crate) platform: Arc<Platform>,
    pub(crate) names: HostNames,
    /// How long a call may take until it is answered.
    pub(crate) deadline: Duration,
}

impl ClientGuard {
    /// Lets a request pass as somebody, or answers it.
    async fn admit(&self, request: &mut Request) -> Result<(), Status> {
        // Only this guard makes principals.
        request.extensions_mut().remove::<Principal>();
        let connection = connection(request)?;
        if !self
            .names
            .knows(connection.peer, request.uri(), request.headers())
        {
            let message = "this server has another name; add the name to its certificate, or use its address";
            return Err(plain(Code::PermissionDenied, "unknown_host", message));
        }
        let access = table::access(CLIENT_DOOR, request.uri().path());
        if access == Some(Access::Open) {
            return few_requests(&connection);
        }
        let token = bearer(request.headers()).ok_or_else(|| status(Refused::Unauthenticated))?;
        let principal = access::authenticate(&self.platform, token)
            .await
            .map_err(status)?;
        connection.authenticated().map_err(no_room)?;
        match access {
            Some(Access::AnyToken) => {}
            Some(Access::Token(permission)) if principal.may(permission, &principal.namespace) => {}
            Some(Access::Token(permission)) => {
                let message = format!("the token does not permit {permission:?}");
                return Err(status(Refused::Denied(message)));
            }
            _ => return Err(unknown_method()),
        }
        request.extensions_mut().insert(principal);
        Ok(())
    }
}

/// The client door's first layer. Calls that have one answer have a deadline for it.
pub(crate) async fn guard_client(
    State(guard): State<Arc<ClientGuard>>,
    mut request: Request,
    next: Next,
) -> Response {
    let grpc = is_grpc(request.headers());
    let path = request.uri().path();
    let has_deadline = path.starts_with("/hodei.v1.") && !STREAMING.contains(&path);
    let serving = async {
        match guard.admit(&mut request).await {
            Ok(()) => next.run(request).await,
            Err(status) => answer(status, grpc),
        }
    };
    if !has_deadline {
        return serving.await;
    }
    match tokio::time::timeout(guard.deadline, serving).await {
        Ok(response) => response,
        Err(_) => {
            let limit = guard.deadline.as_secs_f32();
            let message = format!("no answer within {limit} s; whether the call took effect is not known");
            answer(plain(Code::DeadlineExceeded, "deadline_exceeded", &message), grpc)
        }
    }
}

/// The worker door's guard.
pub(crate) struct WorkerGuard {
    platform: Arc<Platform>,
    /// Those that register.
    strangers: Semaphore,
    /// Those that renew. They have shown a certificate of ours, so strangers can not crowd them out.
    renewing: Semaphore,
}

/// What a request that the worker door lets pass may take.
#[derive(Clone, Copy)]
enum Allowance {
    /// A worker with a valid certificate.
    Full,
    /// Somebody without a certificate.
    Stranger,
    /// A worker whose certificate may have ended.
    Renewing,
}

impl WorkerGuard {
    pub(crate) fn new(platform: Arc<Platform>) -> Self {
        Self {
            platform,
            strangers: Semaphore::new(STRANGERS),
            renewing: Semaphore::new(STRANGERS),
        }
    }

    /// Lets a request pass.
    async fn admit(&self, request: &mut Request) -> Result<Allowance, Status> {
        request.extensions_mut().remove::<WorkerCertificate>();
        let connection = connection(request)?;
        let shown = connection.worker;
        match table::access(WORKER_DOOR, request.uri().path()) {
            Some(Access::OneTimePassword) => {
                few_requests(&connection)?;
                Ok(Allowance::Stranger)
            }
            Some(Access::EndedWorkerCertificate) => {
                few_requests(&connection)?;
                request.extensions_mut().insert(shown.ok_or_else(no_certificate)?);
                Ok(Allowance::Renewing)
            }
            Some(Access::WorkerCertificate) => {
                let shown = shown.ok_or_else(no_certificate)?;
                if shown.identity.not_after_ms <= self.platform.clock.now_ms() {
                    let message = "the certificate has ended; renew it";
                    return Err(plain(Code::Unauthenticated, "certificate_ended", message));
                }
                workers::check(&self.platform, &shown.identity)
                    .await
                    .map_err(status)?;
                connection.authenticated().map_err(no_room)?;
                request.extensions_mut().insert(shown);
                Ok(Allowance::Full)
            }
            _ if shown.is_none() => Err(no_certificate()),
            _ => Err(unknown_method()),
        }
    }
}

/// The worker door's first layer. Those without a valid certificate get small, short requests, few at once.
pub(crate) async fn guard_worker(
    State(guard): State<Arc<WorkerGuard>>,
    mut request: Request,
    next: Next,
) -> Response {
    let grpc = is_grpc(request.headers());
    let (few, refused) = match guard.admit(&mut request).await {
        Ok(Allowance::Full) => return next.run(request).await,
        Ok(Allowance::Stranger) => (&guard.strangers, register_status(&RegisterError::Refused)),
        Ok(Allowance::Renewing) => (&guard.renewing, renew_status(&RenewError::Refused)),
        Err(status) => return answer(status, grpc),
    };
    let connection = request.extensions().get::<Connection>().cloned();
    let serving = async {
        // Read whole, so that whatever is too large hears the same as whatever else is wrong; and before it counts,
        // so that nobody holds a place by sending slowly.
        let (parts, body) = request.into_parts();
        let reading = Limited::new(body, MAX_REGISTER_BYTES + FRAME_BYTES).collect();
        let Ok(body) = reading.await else {
            return answer(refused, grpc);
        };
        let Ok(_permit) = few.try_acquire() else {
            let message = "too many workers ask for certificates at once; try again";
            return answer(plain(Code::Unavailable, "try_again", message), grpc);
        };
        let request = Request::from_parts(parts, Body::from(body.to_bytes()));
        next.run(request).await
    };
    match tokio::time::timeout(STRANGER_DEADLINE, serving).await {
        Ok(response) => {
            // A gRPC answer that failed has its status in the head. One that succeeded is sent whether or not there
            // is room for its connection to stay.
            if !response.headers().contains_key(GRPC_STATUS)
                && let Some(connection) = connection
            {
                let _ = connection.authenticated();
            }
            response
        }
        Err(_) => answer(
            plain(Code::DeadlineExceeded, "too_slow", "the request took too long"),
            grpc,
        ),
    }
}

/// Who calls a method of the client door.
pub(crate) fn principal<T>(request: &tonic::Request<T>) -> Result<Principal, Status> {
    let found = request.extensions().get::<Principal>().cloned();
    found.ok_or_else(|| status(Refused::Unauthenticated))
}

/// Which worker calls a method of the worker door.
pub(crate) fn worker<T>(request: &tonic::Request<T>) -> Result<WorkerCertificate, Status> {
    let found = request.extensions().get::<WorkerCertificate>().copied();
    found.ok_or_else(no_certificate)
}

fn connection(request: &Request) -> Result<Connection, Status> {
    let found = request.extensions().get::<Connection>().cloned();
    found.ok_or_else(|| status(Refused::Internal("a request came over no connection".to_owned())))
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (scheme, token) = values.next()?.to_str().ok()?.split_once(' ')?;
    let one = values.next().is_none();
    (one && scheme.eq_ignore_ascii_case("bearer")).then(|| token.trim())
}

/// A stranger's requests are few at once, where they are served at all.
fn few_requests(connection: &Connection) -> Result<(), Status> {
    if connection.asks_too_much() {
        let message = "too many requests at once on a connection without credentials; try again";
        return Err(plain(Code::Unavailable, "try_again", message));
    }
    Ok(())
}

fn no_room(error: NoRoom) -> Status {
    plain(
        Code::Unavailable,
        "too_many_connections",
        &format!("{error}; try again"),
    )
}

fn no_certificate() -> Status {
    plain(
        Code::Unauthenticated,
        "unauthenticated",
        "a worker certificate is needed",
    )
}

fn unknown_method() -> Status {
    plain(Code::Unimplemented, "unknown_method", "there is no such method")
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    kind.is_some_and(|kind| kind.starts_with(b"application/grpc"))
}

/// A refusal in the caller's own language.
fn answer(status: Status, grpc: bool) -> Response {
    if grpc {
        return status.into_http();
    }
    let code = match status.code() {
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::Unimplemented => StatusCode::NOT_FOUND,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::REQUEST_TIMEOUT,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let mut response = (code, format!("{}\n", status.message())).into_response();
    if code == StatusCode::UNAUTHORIZED {
        let scheme = HeaderValue::from_static("Bearer");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn knows(host: &str, in_uri: bool) -> bool {
        let names = HostNames::new(["Jobs.example".to_owned()]);
        let address = "192.0.2.7:7420".parse().expect("an address");
        let peer = Peer::Tcp {
            remote: address,
            local: address,
        };
        let mut headers = HeaderMap::new();
        let uri = if in_uri {
            format!("http://{host}/x").parse().expect("a URI")
        } else {
            headers.insert(header::HOST, host.parse().expect("a value"));
            Uri::from_static("/x")
        };
        names.knows(peer, &uri, &headers)
    }

    #[test]
    fn only_known_names_are_answered() {
        for host in [
            "localhost",
            "LOCALHOST:7420",
            "192.0.2.7:7420",
            "192.0.2.7",
            "jobs.EXAMPLE:1",
        ] {
            assert!(knows(host, true) && knows(host, false), "{host}");
        }
        for host in [
            "evil.example",
            "127.0.0.1:7420",
            "192.0.2.8",
            "localhost.evil.example",
        ] {
            assert!(!knows(host, true) && !knows(host, false), "{host}");
        }
        let unix = Peer::Unix { uid: None };
        let nothing = HeaderMap::new();
        assert!(HostNames::default().knows(unix, &Uri::from_static("/x"), &nothing));
        let v6: std::net::SocketAddr = "[::1]:7420".parse().expect("an address");
        let peer = Peer::Tcp {
            remote: v6,
            local: v6,
        };
        assert!(HostNames::default().knows(peer, &Uri::from_static("http://[::1]:7420/x"), &nothing));
        assert!(!HostNames::default().knows(peer, &Uri::from_static("/x"), &nothing));
    }

    #[test]
    fn a_token_is_taken_from_one_bearer_header_only() {
        let headers = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, value.parse().expect("a value"));
            }
            headers
        };
        assert_eq!(bearer(&headers(&["Bearer abc"])), Some("abc"));
        assert_eq!(bearer(&headers(&["bearer abc"])), Some("abc"));
        for values in [&[][..], &["Basic abc"], &["Bearer"], &["Bearer a", "Bearer b"]] {
            assert_eq!(bearer(&headers(values)), None, "{values:?}");
        }
    }
}
