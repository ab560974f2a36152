//! The table of all methods. A test walks the compiled services and fails if one is missing here.

use super::Permission;

/// What a call must bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nothing: open to everybody who reaches the door.
    Open,
    /// A valid token, whatever it permits.
    AnyToken,
    /// A token that permits this.
    Token(Permission),
    /// A one-time password in the message; no certificate.
    OneTimePassword,
    /// A valid worker certificate.
    WorkerCertificate,
    /// A worker certificate that may have ended.
    EndedWorkerCertificate,
}

/// Every method by its gRPC path, `/package.Service/Method`. A path that ends with `/` stands for the service.
pub const CLIENT_DOOR: &[(&str, Access)] = &[
    (
        "/hodei.v1.JobExecutionService/QueueJob",
        Access::Token(Permission::SubmitJobs),
    ),
    (
        "/hodei.v1.JobExecutionService/GetJob",
        Access::Token(Permission::ReadJobs),
    ),
    (
        "/hodei.v1.JobExecutionService/ListJobs",
        Access::Token(Permission::ReadJobs),
    ),
    (
        "/hodei.v1.JobExecutionService/WatchJob",
        Access::Token(Permission::ReadJobs),
    ),
    (
        "/hodei.v1.JobExecutionService/CancelJob",
        Access::Token(Permission::CancelJobs),
    ),
    (
        "/hodei.v1.JobExecutionService/RetryJob",
        Access::Token(Permission::SubmitJobs),
    ),
    (
        "/hodei.v1.JobExecutionService/SendInput",
        Access::Token(Permission::SubmitJobs),
    ),
    (
        "/hodei.v1.JobExecutionService/ListJobEvents",
        Access::Token(Permission::ReadJobs),
    ),
    (
        "/hodei.v1.SchedulerService/WhyJob",
        Access::Token(Permission::ReadJobs),
    ),
    (
        "/hodei.v1.SchedulerService/ListWorkers",
        Access::Token(Permission::ReadPlatform),
    ),
    (
        "/hodei.v1.SchedulerService/GetWorker",
        Access::Token(Permission::ReadPlatform),
    ),
    (
        "/hodei.v1.SchedulerService/ListProviders",
        Access::Token(Permission::ReadPlatform),
    ),
    (
        "/hodei.v1.SchedulerService/GetProvider",
        Access::Token(Permission::ReadPlatform),
    ),
    (
        "/hodei.v1.SchedulerService/GetQueueStatus",
        Access::Token(Permission::ReadPlatform),
    ),
    (
        "/hodei.v1.SchedulerService/CheckProvider",
        Access::Token(Permission::ReadPlatform),
    ),
    (
        "/hodei.v1.SchedulerService/DrainWorker",
        Access::Token(Permission::ManagePlatform),
    ),
    (
        "/hodei.v1.SchedulerService/DrainProvider",
        Access::Token(Permission::ManagePlatform),
    ),
    (
        "/hodei.v1.SchedulerService/ResumeProvider",
        Access::Token(Permission::ManagePlatform),
    ),
    (
        "/hodei.v1.LogStreamService/ReadOutput",
        Access::Token(Permission::ReadOutput),
    ),
    ("/grpc.reflection.v1.ServerReflection/", Access::AnyToken),
    ("/grpc.reflection.v1alpha.ServerReflection/", Access::AnyToken),
    ("/grpc.health.v1.Health/", Access::Open),
    ("/healthz", Access::Open),
];

/// The methods of the worker door.
pub const WORKER_DOOR: &[(&str, Access)] = &[
    (
        "/hodei.v1.WorkerAgentService/RegisterWorker",
        Access::OneTimePassword,
    ),
    (
        "/hodei.v1.WorkerAgentService/RenewCertificate",
        Access::EndedWorkerCertificate,
    ),
    ("/hodei.v1.WorkerAgentService/Connect", Access::WorkerCertificate),
    (
        "/hodei.v1.WorkerAgentService/StreamOutput",
        Access::WorkerCertificate,
    ),
    (
        "/hodei.v1.WorkerAgentService/ReadInput",
        Access::WorkerCertificate,
    ),
];

/// What a path of a door needs; `None`: there is no such method, refuse it.
pub fn access(door: &[(&'static str, Access)], path: &str) -> Option<Access> {
    let found = door.iter().find(|(known, _)| match known.strip_suffix('/') {
        Some(service) => path
            .strip_prefix(service)
            .is_some_and(|rest| rest.starts_with('/')),
        None => *known == path,
    });
    found.map(|(_, access)| *access)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_paths_are_refused_and_no_method_is_on_both_doors() {
        assert_eq!(access(CLIENT_DOOR, "/hodei.v1.JobExecutionService/Nothing"), None);
        assert_eq!(
            access(CLIENT_DOOR, "/grpc.health.v1.Health/Check"),
            Some(Access::Open)
        );
        assert_eq!(access(CLIENT_DOOR, "/grpc.health.v1.HealthOther/Check"), None);
        assert!(
            CLIENT_DOOR
                .iter()
                .all(|(path, _)| access(WORKER_DOOR, path).is_none())
        );
    }
}
