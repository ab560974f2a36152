//! The two doors: which services stand behind which guard.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use hodei_jobs::FILE_DESCRIPTOR_SET;
use hodei_jobs::transport::{MAX_CLIENT_MESSAGE_BYTES, MAX_WORKER_MESSAGE_BYTES};
use hodei_jobs::v1::job_execution_service_server::JobExecutionServiceServer;
use hodei_jobs::v1::log_stream_service_server::LogStreamServiceServer;
use hodei_jobs::v1::scheduler_service_server::SchedulerServiceServer;
use hodei_jobs::v1::worker_agent_service_server::WorkerAgentServiceServer;
use hodei_server_application::platform::Platform;
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::auth::{ClientGuard, HostNames, WorkerGuard, guard_client, guard_worker};
use crate::grpc::job_execution::JobExecution;
use crate::grpc::log_stream::LogStream;
use crate::grpc::scheduler::Scheduler;
use crate::grpc::worker_agent::WorkerAgent;

/// The compiled description of the services can not be served.
#[derive(Debug, Error)]
#[error("reflection can not be served: {0}")]
pub struct ReflectionError(String);

/// The services that reflection names on the client door.
const CLIENT_SERVICES: [&str; 3] = [
    "hodei.v1.JobExecutionService",
    "hodei.v1.SchedulerService",
    "hodei.v1.LogStreamService",
];

/// What clients reach. A call that has one answer gets it within `deadline`; open streams end when `closing` is cancelled.
///
/// # Errors
/// [`ReflectionError`] if this build is broken.
pub fn client_router(
    platform: &Arc<Platform>,
    names: HostNames,
    deadline: Duration,
    closing: &CancellationToken,
) -> Result<Router, ReflectionError> {
    let jobs = JobExecutionServiceServer::new(JobExecution {
        platform: Arc::clone(platform),
        closing: closing.clone(),
    });
    let scheduler = SchedulerServiceServer::new(Scheduler {
        platform: Arc::clone(platform),
    });
    let logs = LogStreamServiceServer::new(LogStream {
        platform: Arc::clone(platform),
        closing: closing.clone(),
    });
    // The overall service is serving from the start; services of their own states come with replicas.
    let (_reporter, health) = tonic_health::server::health_reporter();
    let reflection = |builder: tonic_reflection::server::Builder<'static>| {
        let with = builder.register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET);
        CLIENT_SERVICES
            .iter()
            .fold(with, |builder, name| builder.with_service_name(*name))
    };
    let failed = |error: tonic_reflection::server::Error| ReflectionError(error.to_string());
    let configure = tonic_reflection::server::Builder::configure;
    let routes = Routes::new(jobs.max_decoding_message_size(MAX_CLIENT_MESSAGE_BYTES))
        .add_service(scheduler.max_decoding_message_size(MAX_CLIENT_MESSAGE_BYTES))
        .add_service(logs.max_decoding_message_size(MAX_CLIENT_MESSAGE_BYTES))
        .add_service(health)
        .add_service(reflection(configure()).build_v1().map_err(failed)?)
        .add_service(reflection(configure()).build_v1alpha().map_err(failed)?);
    let guard = Arc::new(ClientGuard {
        platform: Arc::clone(platform),
        names,
        deadline,
    });
    let router = routes.into_axum_router().route("/healthz", get(async || "ok\n"));
    Ok(router.layer(from_fn_with_state(guard, guard_client)))
}

/// What workers reach over one door; how many of them may register at once is counted for each router. Open
/// streams end when `closing` is cancelled.
pub fn worker_router(platform: &Arc<Platform>, closing: &CancellationToken) -> Router {
    let agent = WorkerAgentServiceServer::new(WorkerAgent {
        platform: Arc::clone(platform),
        closing: closing.clone(),
    });
    let routes = Routes::new(agent.max_decoding_message_size(MAX_WORKER_MESSAGE_BYTES));
    let guard = Arc::new(WorkerGuard::new(Arc::clone(platform)));
    routes
        .into_axum_router()
        .layer(from_fn_with_state(guard, guard_worker))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use hodei_server_domain::access::table::{Access, CLIENT_DOOR, WORKER_DOOR, access};
    use prost::Message as _;
    use prost_types::FileDescriptorSet;

    use super::*;
    use crate::auth::STREAMING;

    /// Every method of every compiled service: its path, and whether it streams.
    fn compiled() -> Vec<(String, bool)> {
        let files = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET)
            .expect("descriptors")
            .file;
        let own = files.iter().filter(|file| file.package() == "hodei.v1");
        own.flat_map(|file| &file.service)
            .flat_map(|service| {
                service.method.iter().map(move |method| {
                    let path = format!("/hodei.v1.{}/{}", service.name(), method.name());
                    (path, method.client_streaming() || method.server_streaming())
                })
            })
            .collect()
    }

    #[test]
    fn all_methods_that_stream_are_known_to_the_guard() {
        let compiled = compiled();
        let streaming = compiled
            .iter()
            .filter(|(path, streams)| *streams && access(CLIENT_DOOR, path).is_some());
        let streaming: BTreeSet<_> = streaming.map(|(path, _)| path.as_str()).collect();
        assert_eq!(streaming, BTreeSet::from(STREAMING));
    }

    #[test]
    fn every_method_is_on_exactly_one_door_and_none_is_open() {
        let compiled = compiled();
        assert!(compiled.len() >= 17, "the descriptors are empty: {compiled:?}");
        for (path, _) in &compiled {
            let rules = [access(CLIENT_DOOR, path), access(WORKER_DOOR, path)];
            let found: Vec<Access> = rules.into_iter().flatten().collect();
            assert_eq!(found.len(), 1, "{path} must stand on one door: {found:?}");
            assert_ne!(found[0], Access::Open, "{path}");
            let worker = path.starts_with("/hodei.v1.WorkerAgentService/");
            assert_eq!(rules[1].is_some(), worker, "{path}");
        }
        let known = |path: &&str| compiled.iter().any(|(compiled, _)| compiled == path);
        let own = CLIENT_DOOR.iter().chain(WORKER_DOOR).map(|(path, _)| *path);
        let stale: Vec<_> = own
            .filter(|path| path.starts_with("/hodei.") && !known(path))
            .collect();
        assert!(
            stale.is_empty(),
            "the table names methods that do not exist: {stale:?}"
        );
    }

    #[test]
    fn only_health_is_open() {
        let open = CLIENT_DOOR
            .iter()
            .chain(WORKER_DOOR)
            .filter(|(_, access)| *access == Access::Open);
        let open: Vec<_> = open.map(|(path, _)| *path).collect();
        assert_eq!(open, ["/grpc.health.v1.Health/", "/healthz"]);
    }
}
