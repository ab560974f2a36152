//! Who is at the other end of a connection, as the connection itself shows it.

use std::net::SocketAddr;
use std::sync::Arc;

use hodei_server_application::ports::link::WorkerIdentity;
use hodei_server_domain::worker::otp::SpkiHash;
use hodei_shared::ids::WorkerId;
use ring::digest;
use thiserror::Error;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

use crate::room::{NoRoom, OpenRequest, Place};

/// How many requests at once a stranger may have open where they are served.
const MAX_STRANGER_REQUESTS: usize = 16;
/// `serialNumber` of X.520 in the subject: the generation of a worker's certificate.
const GENERATION_OID: &str = "2.5.4.5";

/// What a connection shows. Every request that comes over it carries this as an extension.
#[derive(Debug, Clone)]
pub struct Connection {
    /// The other end's address.
    pub peer: Peer,
    /// The verified client certificate; `None` without one.
    pub worker: Option<WorkerCertificate>,
    place: Arc<Place>,
}

impl Connection {
    pub(crate) fn new(peer: Peer, worker: Option<WorkerCertificate>, place: Arc<Place>) -> Self {
        Self { peer, worker, place }
    }

    /// A guard has accepted a credential that came over this connection: it is a stranger no more.
    pub(crate) fn authenticated(&self) -> Result<(), NoRoom> {
        self.place.become_known()
    }

    /// Counts a request as open, if it matters: the connections of strangers are closed when they are idle.
    pub(crate) fn open_request(&self) -> Option<OpenRequest> {
        (!self.place.is_known()).then(|| self.place.request())
    }

    /// Whether a stranger has more requests open than one has a reason for.
    pub(crate) fn asks_too_much(&self) -> bool {
        !self.place.is_known() && self.place.open_requests() > MAX_STRANGER_REQUESTS
    }
}

/// Where a connection comes from.
#[derive(Debug, Clone, Copy)]
pub enum Peer {
    /// Over the network.
    Tcp {
        /// The other end.
        remote: SocketAddr,
        /// This end.
        local: SocketAddr,
    },
    /// Over a socket of this machine.
    Unix {
        /// Whose process it is, if the kernel says so. Never enough to be let in.
        uid: Option<u32>,
    },
}

/// A worker's certificate, whose chain the handshake has verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerCertificate {
    /// Who, of which generation and until when.
    pub identity: WorkerIdentity,
    /// Hash of its key.
    pub spki: SpkiHash,
}

/// A certificate that is not a worker's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the certificate names no worker")]
pub struct NotAWorker;

impl WorkerCertificate {
    /// Reads the names in a certificate (DER): one URI `spiffe://CLUSTER/worker/ID`, and the generation. That the
    /// chain is ours was verified before; this function alone decides who it is.
    ///
    /// # Errors
    /// [`NotAWorker`] if there is another name, or none.
    pub fn read(der: &[u8]) -> Result<Self, NotAWorker> {
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| NotAWorker)?;
        if !rest.is_empty() {
            return Err(NotAWorker);
        }
        let names = certificate
            .subject_alternative_name()
            .map_err(|_| NotAWorker)?
            .ok_or(NotAWorker)?;
        let [GeneralName::URI(uri)] = names.value.general_names.as_slice() else {
            return Err(NotAWorker);
        };
        let hash = digest::digest(&digest::SHA256, certificate.public_key().raw);
        let ended = certificate.validity().not_after.timestamp();
        Ok(Self {
            identity: WorkerIdentity {
                worker: worker_of(uri).ok_or(NotAWorker)?,
                generation: generation_of(&certificate).ok_or(NotAWorker)?,
                not_after_ms: ended.saturating_mul(1_000),
            },
            spki: SpkiHash(hash.as_ref().try_into().map_err(|_| NotAWorker)?),
        })
    }
}

fn worker_of(uri: &str) -> Option<WorkerId> {
    let (cluster, path) = uri.strip_prefix("spiffe://")?.split_once('/')?;
    if cluster.is_empty() {
        return None;
    }
    path.strip_prefix("worker/")?.parse().ok()
}

fn generation_of(certificate: &X509Certificate<'_>) -> Option<u64> {
    let mut found = certificate
        .subject()
        .iter_attributes()
        .filter(|attribute| attribute.attr_type().to_id_string() == GENERATION_OID);
    let generation = found.next()?.as_str().ok()?.parse().ok()?;
    found.next().is_none().then_some(generation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_worker_uri_names_a_worker() {
        let id = WorkerId::from_bytes([9; 16]);
        assert_eq!(worker_of(&format!("spiffe://c/worker/{id}")), Some(id));
        for uri in [
            format!("spiffe://c/server/{id}"),
            format!("spiffe:///worker/{id}"),
            format!("spiffe://c/worker/{id}/x"),
            format!("spiffe://c/x/worker/{id}"),
            format!("http://c/worker/{id}"),
            "spiffe://c/worker/".to_owned(),
            String::new(),
        ] {
            assert_eq!(worker_of(&uri), None, "{uri}");
        }
        assert_eq!(WorkerCertificate::read(b"no certificate"), Err(NotAWorker));
    }
}
