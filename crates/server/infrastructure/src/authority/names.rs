//! The names in certificates.
//!
//! Servers and workers are named by one URI, `spiffe://CLUSTER/server/ID` and `spiffe://CLUSTER/worker/ID`. A
//! worker's generation is the attribute `serialNumber` (2.5.4.5, X.520) of its subject. Server certificates also
//! carry the cluster's one DNS name, so that any replica verifies.

use hodei_shared::ids::WorkerId;

/// The one DNS name of a cluster's servers.
pub(super) fn server_name(cluster: &str) -> String {
    format!("server.{cluster}.hodei.internal")
}

/// The URI of a server.
pub(super) fn server_uri(cluster: &str, id: &str) -> String {
    format!("spiffe://{cluster}/server/{id}")
}

/// The URI of a worker.
pub(super) fn worker_uri(cluster: &str, worker: WorkerId) -> String {
    format!("spiffe://{cluster}/worker/{worker}")
}

/// `serialNumber` of X.520: holds a worker's generation.
pub(super) const GENERATION_OID: [u64; 4] = [2, 5, 4, 5];
