//! The gRPC services: each method parses, calls one use case and answers.

pub mod convert;
pub mod errors;
pub(crate) mod job_execution;
pub(crate) mod log_stream;
pub(crate) mod scheduler;
mod streams;
pub(crate) mod worker_agent;
