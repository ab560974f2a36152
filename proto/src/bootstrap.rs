//! What a worker is handed on standard input when its machine starts: all that it trusts, and nothing else.

use std::fmt;

use hodei_shared::secret::SecretString;
use serde::{Deserialize, Serialize};

/// The bootstrap document: one line of JSON, at most 64 KiB.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bootstrap {
    /// `hodei_otp_ID_SECRET`: can be redeemed once.
    #[serde(with = "secret")]
    pub otp: SecretString,
    /// The only certificates that the worker trusts, PEM.
    pub root_certificates: String,
    /// The DNS name in every server's certificate.
    pub server_name: String,
    /// Server addresses, `IP:PORT` by number.
    pub addresses: Vec<String>,
    /// A socket on this machine that is tried before the addresses.
    pub socket: Option<String>,
    /// Server time in milliseconds since the Unix epoch.
    pub now_ms: i64,
    /// The worker's id, for its log and for HODEI_WORKER_ID. The identity is the one in the certificate.
    pub worker_id: String,
    /// Room for jobs: thousandths of a processor, bytes, and how many at once.
    pub cpu_millis: u64,
    /// Memory for jobs, in bytes.
    pub memory_bytes: u64,
    /// How many jobs at once.
    pub slots: u32,
    /// How long the worker stays without a job and without contact, in milliseconds.
    pub leave_after_ms: u64,
    /// Whether jobs, too, end after that time without contact: their server was that of one command, and nobody
    /// comes back for their results.
    #[serde(default)]
    pub jobs_end_with_server: bool,
    /// A folder of this machine that jobs must not see: the server's data folder.
    #[serde(default)]
    pub cover: Option<String>,
}

impl fmt::Debug for Bootstrap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bootstrap")
            .field("worker_id", &self.worker_id)
            .finish_non_exhaustive()
    }
}

mod secret {
    use super::{Deserialize, SecretString};

    pub(super) fn serialize<S: serde::Serializer>(secret: &SecretString, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(secret.expose())
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(d: D) -> Result<SecretString, D::Error> {
        String::deserialize(d).map(SecretString::new)
    }
}
