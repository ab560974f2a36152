//! JobExecutionService: queues jobs and follows them.

use std::sync::Arc;

use futures::stream;
use hodei_jobs::transport::MAX_SPEC_BYTES;
use hodei_jobs::v1;
use hodei_jobs::v1::job_execution_service_server::JobExecutionService;
use hodei_server_application::input::{self, Part, Sent};
use hodei_server_application::jobs;
use hodei_server_application::platform::Platform;
use hodei_server_application::ports::jobs::JobRecord;
use hodei_shared::{Invalid, resources};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::convert;
use super::errors::{invalid, status};
use super::streams::{Answers, Life, ending};
use crate::auth::principal;

pub(crate) struct JobExecution {
    pub(crate) platform: Arc<Platform>,
    pub(crate) closing: CancellationToken,
}

impl JobExecution {
    fn message(&self, record: &JobRecord) -> Option<v1::Job> {
        Some(convert::job_message(record, self.platform.clock.now_ms()))
    }
}

/// Refuses what is larger than a worker will take.
fn check_size(spec: Option<&v1::JobSpec>) -> Result<(), Status> {
    let bytes = spec.map_or(0, prost::Message::encoded_len);
    if bytes <= MAX_SPEC_BYTES {
        return Ok(());
    }
    let rule = format!(
        "is larger than {}; put large data into files that the job reads",
        resources::format_bytes(MAX_SPEC_BYTES as u64)
    );
    Err(invalid(Invalid::new(
        "spec",
        resources::format_bytes(bytes as u64),
        rule,
    )))
}

#[tonic::async_trait]
impl JobExecutionService for JobExecution {
    async fn queue_job(
        &self,
        request: Request<v1::QueueJobRequest>,
    ) -> Result<Response<v1::QueueJobResponse>, Status> {
        let principal = principal(&request)?;
        let request = request.into_inner();
        check_size(request.spec.as_ref())?;
        let request = convert::queue_request(request).map_err(status)?;
        let record = jobs::queue(&self.platform, &principal, request)
            .await
            .map_err(status)?;
        Ok(Response::new(v1::QueueJobResponse {
            job: self.message(&record),
        }))
    }

    async fn get_job(
        &self,
        request: Request<v1::GetJobRequest>,
    ) -> Result<Response<v1::GetJobResponse>, Status> {
        let principal = principal(&request)?;
        let id = convert::job_id(&request.get_ref().job_id).map_err(status)?;
        let record = jobs::get(&self.platform, &principal, id).await.map_err(status)?;
        Ok(Response::new(v1::GetJobResponse {
            job: self.message(&record),
        }))
    }

    async fn list_jobs(
        &self,
        request: Request<v1::ListJobsRequest>,
    ) -> Result<Response<v1::ListJobsResponse>, Status> {
        let principal = principal(&request)?;
        let (filter, size) = convert::job_filter(request.into_inner()).map_err(status)?;
        let records = jobs::list(&self.platform, &principal, filter)
            .await
            .map_err(status)?;
        Ok(Response::new(convert::job_page(
            &records,
            size,
            self.platform.clock.now_ms(),
        )))
    }

    type WatchJobStream = Answers<v1::WatchJobResponse>;

    async fn watch_job(
        &self,
        request: Request<v1::WatchJobRequest>,
    ) -> Result<Response<Self::WatchJobStream>, Status> {
        let principal = principal(&request)?;
        let id = convert::job_id(&request.get_ref().job_id).map_err(status)?;
        let watch = jobs::watch(Arc::clone(&self.platform), principal, id)
            .await
            .map_err(status)?;
        let platform = Arc::clone(&self.platform);
        let answers = stream::unfold((watch, platform), |(mut watch, platform)| async move {
            let answer = match watch.next().await? {
                Ok(record) => {
                    let job = convert::job_message(&record, platform.clock.now_ms());
                    Ok(v1::WatchJobResponse { job: Some(job) })
                }
                Err(refused) => Err(status(refused)),
            };
            Some((answer, (watch, platform)))
        });
        Ok(Response::new(ending(answers, Life::new(&self.closing))))
    }

    async fn cancel_job(
        &self,
        request: Request<v1::CancelJobRequest>,
    ) -> Result<Response<v1::CancelJobResponse>, Status> {
        let principal = principal(&request)?;
        let v1::CancelJobRequest { job_id, reason } = request.into_inner();
        let id = convert::job_id(&job_id).map_err(status)?;
        let reason = hodei_shared::text::one_line(&reason);
        let record = jobs::cancel(&self.platform, &principal, id, reason)
            .await
            .map_err(status)?;
        Ok(Response::new(v1::CancelJobResponse {
            job: self.message(&record),
        }))
    }

    async fn retry_job(
        &self,
        request: Request<v1::RetryJobRequest>,
    ) -> Result<Response<v1::RetryJobResponse>, Status> {
        let principal = principal(&request)?;
        let v1::RetryJobRequest { job_id, request_id } = request.into_inner();
        let id = convert::job_id(&job_id).map_err(status)?;
        let record = jobs::retry(&self.platform, &principal, id, request_id)
            .await
            .map_err(status)?;
        Ok(Response::new(v1::RetryJobResponse {
            job: self.message(&record),
        }))
    }

    async fn send_input(
        &self,
        request: Request<v1::SendInputRequest>,
    ) -> Result<Response<v1::SendInputResponse>, Status> {
        let principal = principal(&request)?;
        let v1::SendInputRequest {
            job_id,
            offset,
            data,
            eof,
        } = request.into_inner();
        let id = convert::job_id(&job_id).map_err(status)?;
        let part = Part { offset, data, eof };
        let Sent { end, complete } = input::send(&self.platform, &principal, id, part)
            .await
            .map_err(status)?;
        Ok(Response::new(v1::SendInputResponse { end, complete }))
    }

    async fn list_job_events(
        &self,
        request: Request<v1::ListJobEventsRequest>,
    ) -> Result<Response<v1::ListJobEventsResponse>, Status> {
        let principal = principal(&request)?;
        let id = convert::job_id(&request.get_ref().job_id).map_err(status)?;
        let events = jobs::events(&self.platform, &principal, id)
            .await
            .map_err(status)?;
        let events = events.iter().map(convert::event_message).collect();
        Ok(Response::new(v1::ListJobEventsResponse { events }))
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    #[test]
    fn a_large_specification_is_refused_with_both_sizes() {
        let spec = v1::JobSpec {
            script: "x".repeat(MAX_SPEC_BYTES + 1),
            ..v1::JobSpec::default()
        };
        let refused = check_size(Some(&spec)).expect_err("too large");
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
        assert!(refused.message().contains("1.0MiB") && refused.message().contains("larger than 1MiB"));
        assert!(check_size(Some(&v1::JobSpec::default())).is_ok());
        assert!(spec.encoded_len() > MAX_SPEC_BYTES);
    }
}
