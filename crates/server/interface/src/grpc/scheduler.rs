//! SchedulerService: explains decisions and shows where jobs run.

use std::sync::Arc;

use hodei_jobs::v1;
use hodei_jobs::v1::scheduler_service_server::SchedulerService;
use hodei_server_application::platform::Platform;
use hodei_server_application::scheduler::{self, WorkerView};
use hodei_shared::ids::{ProviderId, WorkerId};
use hodei_shared::text;
use tonic::{Request, Response, Status};

use super::convert;
use super::errors::status;
use crate::auth::principal;

pub(crate) struct Scheduler {
    pub(crate) platform: Arc<Platform>,
}

impl Scheduler {
    fn worker(&self, view: &WorkerView) -> v1::Worker {
        let provider = self.platform.providers.get(&view.record.provider);
        let capabilities = provider.map(|provider| provider.capabilities());
        convert::worker_message(view, capabilities.as_ref().map(|c| &c.labels))
    }
}

fn worker_id(text: &str) -> Result<WorkerId, Status> {
    text.parse()
        .map_err(|_| status(convert::not_found("worker", text)))
}

fn provider_id(text: &str) -> Result<ProviderId, Status> {
    ProviderId::new(text).map_err(|_| status(convert::not_found("provider", text)))
}

#[tonic::async_trait]
impl SchedulerService for Scheduler {
    async fn why_job(
        &self,
        request: Request<v1::WhyJobRequest>,
    ) -> Result<Response<v1::WhyJobResponse>, Status> {
        let principal = principal(&request)?;
        let id = convert::job_id(&request.get_ref().job_id).map_err(status)?;
        let why = scheduler::why(&self.platform, &principal, id)
            .await
            .map_err(status)?;
        Ok(Response::new(convert::why_message(why)))
    }

    async fn list_workers(
        &self,
        request: Request<v1::ListWorkersRequest>,
    ) -> Result<Response<v1::ListWorkersResponse>, Status> {
        let principal = principal(&request)?;
        let all = request.get_ref().all;
        let workers = scheduler::workers(&self.platform, &principal, all)
            .await
            .map_err(status)?;
        let workers = workers.iter().map(|view| self.worker(view)).collect();
        Ok(Response::new(v1::ListWorkersResponse { workers }))
    }

    async fn get_worker(
        &self,
        request: Request<v1::GetWorkerRequest>,
    ) -> Result<Response<v1::GetWorkerResponse>, Status> {
        let principal = principal(&request)?;
        let id = worker_id(&request.get_ref().worker_id)?;
        let view = scheduler::worker(&self.platform, &principal, id)
            .await
            .map_err(status)?;
        let worker = Some(self.worker(&view));
        Ok(Response::new(v1::GetWorkerResponse { worker }))
    }

    async fn list_providers(
        &self,
        request: Request<v1::ListProvidersRequest>,
    ) -> Result<Response<v1::ListProvidersResponse>, Status> {
        let principal = principal(&request)?;
        let providers = scheduler::providers(&self.platform, &principal)
            .await
            .map_err(status)?;
        let providers = providers.iter().map(convert::provider_message).collect();
        Ok(Response::new(v1::ListProvidersResponse { providers }))
    }

    async fn get_provider(
        &self,
        request: Request<v1::GetProviderRequest>,
    ) -> Result<Response<v1::GetProviderResponse>, Status> {
        let principal = principal(&request)?;
        let id = provider_id(&request.get_ref().provider)?;
        let view = scheduler::provider(&self.platform, &principal, &id)
            .await
            .map_err(status)?;
        let provider = Some(convert::provider_message(&view));
        Ok(Response::new(v1::GetProviderResponse { provider }))
    }

    async fn check_provider(
        &self,
        request: Request<v1::CheckProviderRequest>,
    ) -> Result<Response<v1::CheckProviderResponse>, Status> {
        let principal = principal(&request)?;
        let id = provider_id(&request.get_ref().provider)?;
        let view = scheduler::check_provider(&self.platform, &principal, &id)
            .await
            .map_err(status)?;
        let provider = Some(convert::provider_message(&view));
        Ok(Response::new(v1::CheckProviderResponse { provider }))
    }

    async fn drain_worker(
        &self,
        request: Request<v1::DrainWorkerRequest>,
    ) -> Result<Response<v1::DrainWorkerResponse>, Status> {
        let principal = principal(&request)?;
        let request = request.into_inner();
        let id = worker_id(&request.worker_id)?;
        let reason = text::one_line(&request.reason);
        let view = scheduler::drain_worker(&self.platform, &principal, id, reason)
            .await
            .map_err(status)?;
        let worker = Some(self.worker(&view));
        Ok(Response::new(v1::DrainWorkerResponse { worker }))
    }

    async fn drain_provider(
        &self,
        request: Request<v1::DrainProviderRequest>,
    ) -> Result<Response<v1::DrainProviderResponse>, Status> {
        let principal = principal(&request)?;
        let request = request.into_inner();
        let id = provider_id(&request.provider)?;
        let reason = text::one_line(&request.reason);
        let view = scheduler::drain_provider(&self.platform, &principal, &id, reason)
            .await
            .map_err(status)?;
        let provider = Some(convert::provider_message(&view));
        Ok(Response::new(v1::DrainProviderResponse { provider }))
    }

    async fn resume_provider(
        &self,
        request: Request<v1::ResumeProviderRequest>,
    ) -> Result<Response<v1::ResumeProviderResponse>, Status> {
        let principal = principal(&request)?;
        let id = provider_id(&request.get_ref().provider)?;
        let view = scheduler::resume_provider(&self.platform, &principal, &id)
            .await
            .map_err(status)?;
        let provider = Some(convert::provider_message(&view));
        Ok(Response::new(v1::ResumeProviderResponse { provider }))
    }

    async fn get_queue_status(
        &self,
        request: Request<v1::GetQueueStatusRequest>,
    ) -> Result<Response<v1::GetQueueStatusResponse>, Status> {
        let principal = principal(&request)?;
        let status_now = scheduler::queue_status(&self.platform, &principal)
            .await
            .map_err(status)?;
        Ok(Response::new(convert::queue_status_message(&status_now)))
    }
}
