//! SchedulerService: explains decisions and shows where jobs run.

use std::sync::Arc;

use hodei_jobs::v1;
use hodei_jobs::v1::scheduler_service_server::SchedulerService;
use hodei_server_application::platform::Platform;
use hodei_server_application::ports::workers::WorkerRecord;
use hodei_server_application::scheduler;
use hodei_shared::ids::{ProviderId, WorkerId};
use tonic::{Request, Response, Status};

use super::convert;
use super::errors::status;
use crate::auth::principal;

pub(crate) struct Scheduler {
    pub(crate) platform: Arc<Platform>,
}

impl Scheduler {
    fn worker(&self, record: &WorkerRecord, connected: bool) -> v1::Worker {
        let provider = self.platform.providers.get(&record.provider);
        let capabilities = provider.map(|provider| provider.capabilities());
        convert::worker_message(record, connected, capabilities.as_ref().map(|c| &c.labels))
    }
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
        let workers = workers
            .iter()
            .map(|(record, connected)| self.worker(record, *connected))
            .collect();
        Ok(Response::new(v1::ListWorkersResponse { workers }))
    }

    async fn get_worker(
        &self,
        request: Request<v1::GetWorkerRequest>,
    ) -> Result<Response<v1::GetWorkerResponse>, Status> {
        let principal = principal(&request)?;
        let id = &request.get_ref().worker_id;
        let id: WorkerId = id.parse().map_err(|_| status(convert::not_found("worker", id)))?;
        let found = scheduler::worker(&self.platform, &principal, id)
            .await
            .map_err(status)?;
        let worker = Some(self.worker(&found.0, found.1));
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
        let id = &request.get_ref().provider;
        let id = ProviderId::new(id.as_str()).map_err(|_| status(convert::not_found("provider", id)))?;
        let view = scheduler::provider(&self.platform, &principal, &id)
            .await
            .map_err(status)?;
        let provider = Some(convert::provider_message(&view));
        Ok(Response::new(v1::GetProviderResponse { provider }))
    }
}
