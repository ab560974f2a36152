//! From the wire's messages to what people see: zero and empty mean "unset" there and are `null` here.

use serde_json::Number;

use super::{
    Attempt, Event, Events, Job, JobResources, Jobs, Output, Provider, ProviderRoom, Providers, QueueStatus,
    Verdict, Why, Worker, WorkerRoom, Workers, attempt_state, job_state, time, worker_state,
};
use crate::v1;

/// Thousandths as a number: whole where it is whole, so that JSON says `2` and `0.5`.
fn thousandths(value: u64) -> Number {
    if value.is_multiple_of(1_000) {
        return Number::from(value / 1_000);
    }
    Number::from_f64(value as f64 / 1_000.0).unwrap_or_else(|| Number::from(value / 1_000))
}

fn set<T: PartialEq + Default>(value: T) -> Option<T> {
    (value != T::default()).then_some(value)
}

impl From<v1::Job> for Job {
    fn from(job: v1::Job) -> Self {
        let state = job_state(job.state());
        let spec = job.spec.unwrap_or_default();
        let stdin = match spec.stdin() {
            v1::StdinMode::Unspecified => None,
            v1::StdinMode::Stream => Some("stream"),
            v1::StdinMode::Whole => Some("whole"),
        };
        Self {
            id: job.id,
            name: set(spec.name),
            namespace: job.namespace,
            state,
            exit_code: job.exit_code,
            signal: job.signal,
            reason: set(job.reason),
            message: set(job.message),
            attempts: job.attempts.into_iter().map(Attempt::from).collect(),
            labels: spec.labels,
            counts: None,
            retry_of: set(job.retry_of),
            created_at: time(job.created_at_ms),
            ended_at: time(job.ended_at_ms),
            cancel_requested: job.cancel_requested,
            command: set(spec.command),
            script: set(spec.script),
            interpreter: set(spec.interpreter),
            image: set(spec.image),
            env: spec.env,
            workdir: set(spec.workdir),
            resources: JobResources {
                cpus: set(spec.cpu_millis).map(thousandths),
                memory: set(spec.memory_bytes),
            },
            timeout: set(spec.timeout_ms).map(thousandths),
            retries: spec.retries,
            retry_on: spec.retry_on,
            constraints: spec.constraints,
            provider: set(spec.provider),
            isolation: set(spec.isolation),
            priority: spec.priority,
            lost_after: set(spec.lost_after_ms).map(thousandths),
            grace: spec.grace_ms.map(thousandths),
            stdin,
            merge: spec.merge,
        }
    }
}

impl From<v1::Attempt> for Attempt {
    fn from(attempt: v1::Attempt) -> Self {
        Self {
            number: attempt.number,
            state: attempt_state(attempt.state()),
            provider: set(attempt.provider),
            worker_id: set(attempt.worker_id),
            machine: set(attempt.machine),
            image_digest: set(attempt.image_digest),
            exit_code: attempt.exit_code,
            signal: attempt.signal,
            reason: set(attempt.reason),
            message: set(attempt.message),
            started_at: time(attempt.started_at_ms),
            ended_at: time(attempt.ended_at_ms),
            output: Output {
                bytes: attempt.output_bytes,
                lines: attempt.output_lines,
                messages: attempt.output_messages,
                truncated: attempt.output_truncated,
                expired: attempt.output_expired,
            },
        }
    }
}

impl From<v1::ListJobsResponse> for Jobs {
    fn from(page: v1::ListJobsResponse) -> Self {
        Self {
            jobs: page.jobs.into_iter().map(Job::from).collect(),
            next_page_token: page.next_page_token,
        }
    }
}

impl From<v1::Worker> for Worker {
    fn from(worker: v1::Worker) -> Self {
        Self {
            state: worker_state(worker.phase()),
            id: worker.id,
            namespace: worker.namespace,
            provider: worker.provider,
            connected: worker.connected,
            machine: set(worker.machine),
            capacity: WorkerRoom {
                cpus: thousandths(worker.cpu_millis),
                memory: worker.memory_bytes,
                slots: worker.slots,
            },
            used: WorkerRoom {
                cpus: thousandths(worker.used_cpu_millis),
                memory: worker.used_memory_bytes,
                slots: worker.used_slots,
            },
            created_at: time(worker.created_at_ms),
            ended_at: time(worker.ended_at_ms),
            message: set(worker.message),
            labels: worker.labels,
            enforced: worker.enforced,
        }
    }
}

impl From<v1::ListWorkersResponse> for Workers {
    fn from(page: v1::ListWorkersResponse) -> Self {
        Self {
            workers: page.workers.into_iter().map(Worker::from).collect(),
            next_page_token: String::new(),
        }
    }
}

impl From<v1::Provider> for Provider {
    fn from(provider: v1::Provider) -> Self {
        Self {
            id: provider.id,
            kind: provider.kind,
            healthy: provider.healthy,
            message: set(provider.message),
            labels: provider.labels,
            isolation: provider.isolation,
            capacity: ProviderRoom {
                cpus: set(provider.cpu_millis).map(thousandths),
                memory: set(provider.memory_bytes),
                workers: set(provider.max_workers),
            },
            used: ProviderRoom {
                cpus: Some(thousandths(provider.used_cpu_millis)),
                memory: Some(provider.used_memory_bytes),
                workers: Some(provider.workers),
            },
            drained: set(provider.drained),
        }
    }
}

impl From<v1::ListProvidersResponse> for Providers {
    fn from(page: v1::ListProvidersResponse) -> Self {
        Self {
            providers: page.providers.into_iter().map(Provider::from).collect(),
            next_page_token: String::new(),
        }
    }
}

impl From<v1::JobEvent> for Event {
    fn from(event: v1::JobEvent) -> Self {
        Self {
            position: event.position,
            at: time(event.at_ms),
            kind: event.kind,
            message: set(event.message),
        }
    }
}

impl From<v1::ListJobEventsResponse> for Events {
    fn from(page: v1::ListJobEventsResponse) -> Self {
        Self {
            events: page.events.into_iter().map(Event::from).collect(),
            next_page_token: String::new(),
        }
    }
}

impl From<v1::WhyJobResponse> for Why {
    fn from(why: v1::WhyJobResponse) -> Self {
        let verdict = |verdict: v1::ProviderVerdict| Verdict {
            provider: verdict.provider,
            fits: verdict.fits,
            ruled_out_by: set(verdict.ruled_out_by),
            message: set(verdict.message),
        };
        Self {
            state: job_state(why.state()),
            summary: set(why.summary),
            providers: why.providers.into_iter().map(verdict).collect(),
        }
    }
}

impl From<v1::GetQueueStatusResponse> for QueueStatus {
    fn from(status: v1::GetQueueStatusResponse) -> Self {
        Self {
            queued: status.ready + status.delayed + status.held,
            ready: status.ready,
            delayed: status.delayed,
            held: status.held,
            assigned: status.assigned,
            running: status.running,
            oldest_ready_at: time(status.oldest_ready_at_ms),
            workers: status.workers,
            connected_workers: status.connected_workers,
            slots: status.slots,
            used_slots: status.used_slots,
        }
    }
}
