//! The one place between wire messages and domain types on the server.
//!
//! Into the domain everything is validated; out of it nothing can fail. Frames of a worker's session and its
//! output are in [`frames`].

pub mod frames;

use std::time::Duration;

use hodei_jobs::v1;
use hodei_server_application::jobs::{QueueRequest, queued_reason};
use hodei_server_application::ports::events::EventRecord;
use hodei_server_application::ports::jobs::{AttemptRecord, JobFilter, JobRecord};
use hodei_server_application::refused::Refused;
use hodei_server_application::scheduler::{ProviderVerdict, ProviderView, QueueStatus, Why, WorkerView};
use hodei_server_domain::job::end::{AttemptOutcome, End, Outcome};
use hodei_server_domain::job::spec::{Command, JobSpec, SpecInput, Stdin};
use hodei_server_domain::job::state::Phase;
use hodei_server_domain::worker::phase::WorkerPhase;
use hodei_shared::ids::{JobId, Namespace};
use hodei_shared::labels::Labels;
use hodei_shared::{Invalid, text};
use prost::Message as _;

/// How many jobs a page has when nothing is said.
const DEFAULT_PAGE: u32 = 50;
/// How many jobs a page has at most.
const MAX_PAGE: u32 = 1_000;
/// How large a page is at most, unless one job alone is larger.
const MAX_PAGE_BYTES: usize = 2 << 20;

/// A request to queue a job.
///
/// # Errors
/// [`Refused::Invalid`] with every rule that is broken.
pub fn queue_request(request: v1::QueueJobRequest) -> Result<QueueRequest, Refused> {
    let namespace = if request.namespace.is_empty() {
        None
    } else {
        Some(Namespace::new(request.namespace)?)
    };
    let spec = request
        .spec
        .ok_or_else(|| Invalid::new("spec", "", "is missing"))?;
    Ok(QueueRequest {
        request_id: request.request_id,
        namespace,
        spec: job_spec(spec).map_err(Refused::Invalid)?,
    })
}

/// A job specification from the wire.
///
/// # Errors
/// Every rule that is broken.
pub fn job_spec(spec: v1::JobSpec) -> Result<JobSpec, Vec<Invalid>> {
    let non_zero = |value: u64| Some(value).filter(|v| *v != 0);
    let stdin = match spec.stdin() {
        v1::StdinMode::Unspecified => Stdin::Null,
        v1::StdinMode::Stream => Stdin::Stream,
        v1::StdinMode::Whole => Stdin::Whole,
    };
    JobSpec::new(SpecInput {
        name: spec.name,
        command: spec.command,
        script: spec.script,
        interpreter: spec.interpreter,
        env: spec.env,
        workdir: spec.workdir,
        cpu_millis: non_zero(spec.cpu_millis),
        memory_bytes: non_zero(spec.memory_bytes),
        timeout: non_zero(spec.timeout_ms).map(Duration::from_millis),
        grace: spec.grace_ms.map(Duration::from_millis),
        retries: spec.retries,
        retry_on: spec.retry_on,
        labels: spec.labels,
        constraints: spec.constraints,
        provider: spec.provider,
        isolation: spec.isolation,
        priority: spec.priority,
        lost_after: non_zero(spec.lost_after_ms).map(Duration::from_millis),
        stdin,
        merge: spec.merge,
        image: spec.image,
    })
}

/// A job specification for the wire, defaults filled in.
pub fn spec_message(spec: &JobSpec) -> v1::JobSpec {
    let (command, script, interpreter) = match &spec.command {
        Command::Argv(argv) => (argv.clone(), String::new(), Vec::new()),
        Command::Script { text, interpreter } => (Vec::new(), text.clone(), interpreter.clone()),
    };
    v1::JobSpec {
        name: spec.name.clone(),
        command,
        script,
        interpreter,
        env: spec.env.clone(),
        workdir: spec.workdir.clone().unwrap_or_default(),
        cpu_millis: spec.resources.cpu_millis,
        memory_bytes: spec.resources.memory_bytes,
        timeout_ms: spec.timeout.map_or(0, millis),
        retries: spec.retry.retries(),
        retry_on: spec.retry.on().iter().map(|on| on.as_str().to_owned()).collect(),
        labels: pairs(&spec.labels),
        constraints: spec.constraints.iter().map(ToString::to_string).collect(),
        provider: spec
            .provider
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        isolation: spec
            .isolation
            .map(|level| level.as_str().to_owned())
            .unwrap_or_default(),
        priority: spec.priority,
        lost_after_ms: millis(spec.lost_after),
        grace_ms: Some(millis(spec.grace)),
        image: spec.image.clone().unwrap_or_default(),
        stdin: match spec.stdin {
            Stdin::Null => v1::StdinMode::Unspecified,
            Stdin::Stream => v1::StdinMode::Stream,
            Stdin::Whole => v1::StdinMode::Whole,
        }
        .into(),
        merge: spec.merge,
    }
}

/// A page of jobs that is asked for, with one job more than its size: whether it comes tells if there is another
/// page.
///
/// # Errors
/// [`Refused::Invalid`].
pub fn job_filter(request: v1::ListJobsRequest) -> Result<(JobFilter, usize), Refused> {
    let size = match request.page_size {
        0 => DEFAULT_PAGE,
        size if size <= MAX_PAGE => size,
        size => {
            let rule = "jobs on a page are too many; 1000 are allowed";
            return Err(Invalid::new("limit", size.to_string(), rule).into());
        }
    };
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    let mut states = Vec::new();
    for state in &request.states {
        let word = v1::JobState::try_from(*state).ok().and_then(state_word);
        states.push(word.ok_or_else(|| Invalid::new("state", state.to_string(), "is not a state"))?);
    }
    let before = match request.page_token.as_str() {
        "" => None,
        token => {
            let rule = "is not a page token of this server";
            Some(
                token
                    .parse()
                    .map_err(|_| Invalid::new("page-token", token, rule))?,
            )
        }
    };
    let filter = JobFilter {
        namespace: None,
        labels: request.labels,
        states,
        before,
        limit: size + 1,
    };
    Ok((filter, size))
}

/// A page of jobs. `size` is the page's size; `records` may have one job more. A page that would be too large for a
/// message ends earlier, but has one job.
pub fn job_page(records: &[JobRecord], size: usize, now_ms: i64) -> v1::ListJobsResponse {
    let (mut jobs, mut bytes) = (Vec::new(), 0);
    for record in records.iter().take(size) {
        let job = job_message(record, now_ms);
        bytes += job.encoded_len();
        if bytes > MAX_PAGE_BYTES && !jobs.is_empty() {
            break;
        }
        jobs.push(job);
    }
    let last = jobs.last().filter(|_| jobs.len() < records.len());
    v1::ListJobsResponse {
        next_page_token: last.map(|job| job.id.clone()).unwrap_or_default(),
        jobs,
    }
}

/// The id of a job in a request.
///
/// # Errors
/// [`Refused::NotFound`]: what is no id names no job.
pub fn job_id(id: &str) -> Result<JobId, Refused> {
    id.parse().map_err(|_| not_found("job", id))
}

/// A refusal for an id that can not exist.
pub(crate) fn not_found(kind: &'static str, id: &str) -> Refused {
    Refused::NotFound {
        kind,
        id: text::shorten(id, 80),
    }
}

/// A job for the wire.
pub fn job_message(record: &JobRecord, now_ms: i64) -> v1::Job {
    let (exit_code, signal, reason, message) = match &record.job.phase {
        Phase::Queued { .. } => {
            let (reason, message) = queued_reason(record, now_ms);
            (None, None, reason, message)
        }
        Phase::Assigned { .. } | Phase::Running { .. } => (None, None, "", String::new()),
        Phase::Ended { end, .. } => (
            end.exit_code,
            end.signal,
            end.reason.as_str(),
            end.message.clone(),
        ),
    };
    let attempts = record.attempts.iter().filter(|attempt| !attempt.never_started);
    v1::Job {
        id: record.id.to_string(),
        namespace: record.namespace.to_string(),
        spec: Some(spec_message(&record.spec)),
        state: job_state(&record.job.phase).into(),
        exit_code,
        signal,
        reason: reason.to_owned(),
        message,
        attempts: attempts.map(attempt_message).collect(),
        retry_of: record.retry_of.map(|id| id.to_string()).unwrap_or_default(),
        created_at_ms: record.created_at_ms,
        ended_at_ms: record.ended_at_ms.unwrap_or_default(),
        cancel_requested: record.job.cancel_requested,
    }
}

fn job_state(phase: &Phase) -> v1::JobState {
    match phase {
        Phase::Queued { .. } => v1::JobState::Queued,
        Phase::Assigned { .. } => v1::JobState::Assigned,
        Phase::Running { .. } => v1::JobState::Running,
        Phase::Ended { outcome, .. } => match outcome {
            Outcome::Succeeded => v1::JobState::Succeeded,
            Outcome::Failed => v1::JobState::Failed,
            Outcome::Cancelled => v1::JobState::Cancelled,
            Outcome::TimedOut => v1::JobState::TimedOut,
        },
    }
}

/// The word under which the store knows a state.
fn state_word(state: v1::JobState) -> Option<&'static str> {
    match state {
        v1::JobState::Unspecified => None,
        v1::JobState::Queued => Some("queued"),
        v1::JobState::Assigned => Some("assigned"),
        v1::JobState::Running => Some("running"),
        v1::JobState::Succeeded => Some("succeeded"),
        v1::JobState::Failed => Some("failed"),
        v1::JobState::Cancelled => Some("cancelled"),
        v1::JobState::TimedOut => Some("timed_out"),
    }
}

fn attempt_message(attempt: &AttemptRecord) -> v1::Attempt {
    let end: Option<&End> = attempt.end.as_ref().map(|(_, end)| end);
    v1::Attempt {
        number: attempt.number,
        state: attempt_state(attempt).into(),
        provider: attempt.provider.to_string(),
        worker_id: attempt.worker.to_string(),
        machine: attempt.machine.clone(),
        exit_code: end.and_then(|end| end.exit_code),
        signal: end.and_then(|end| end.signal),
        reason: end.map(|end| end.reason.as_str().to_owned()).unwrap_or_default(),
        message: end.map(|end| end.message.clone()).unwrap_or_default(),
        started_at_ms: attempt.started_at_ms.unwrap_or_default(),
        ended_at_ms: attempt.ended_at_ms.unwrap_or_default(),
        output_bytes: attempt.output.bytes,
        output_lines: attempt.output.lines,
        output_messages: attempt.output.messages,
        lease: attempt.lease.0,
        image_digest: String::new(),
        output_truncated: attempt.output.truncated,
        output_expired: attempt.output.expired,
    }
}

fn attempt_state(attempt: &AttemptRecord) -> v1::AttemptState {
    match &attempt.end {
        None if attempt.started_at_ms.is_some() => v1::AttemptState::Running,
        None => v1::AttemptState::Assigned,
        Some((outcome, _)) => match outcome {
            AttemptOutcome::Succeeded => v1::AttemptState::Succeeded,
            AttemptOutcome::Failed => v1::AttemptState::Failed,
            AttemptOutcome::TimedOut => v1::AttemptState::TimedOut,
            AttemptOutcome::Cancelled => v1::AttemptState::Cancelled,
            AttemptOutcome::Lost => v1::AttemptState::Lost,
        },
    }
}

/// An event of a job for the wire.
pub fn event_message(record: &EventRecord) -> v1::JobEvent {
    v1::JobEvent {
        position: record.position,
        at_ms: record.at_ms,
        kind: record.event.kind().to_owned(),
        message: record.event.message(),
    }
}

/// An explanation for the wire.
pub fn why_message(why: Why) -> v1::WhyJobResponse {
    v1::WhyJobResponse {
        state: job_state(&why.record.job.phase).into(),
        summary: why.summary,
        providers: why.providers.into_iter().map(verdict_message).collect(),
    }
}

fn verdict_message(verdict: ProviderVerdict) -> v1::ProviderVerdict {
    v1::ProviderVerdict {
        provider: verdict.provider.to_string(),
        fits: verdict.fits,
        ruled_out_by: verdict.ruled_out_by.to_owned(),
        message: verdict.message,
    }
}

/// A worker for the wire.
pub fn worker_message(view: &WorkerView, labels: Option<&Labels>) -> v1::Worker {
    let record = &view.record;
    v1::Worker {
        id: record.id.to_string(),
        namespace: record.namespace.to_string(),
        provider: record.provider.to_string(),
        phase: worker_phase(record.phase).into(),
        connected: view.connected,
        machine: record.machine.clone(),
        cpu_millis: record.room.cpu_millis,
        memory_bytes: record.room.memory_bytes,
        used_cpu_millis: view.used.cpu_millis,
        used_memory_bytes: view.used.memory_bytes,
        slots: record.slots,
        used_slots: record.used_slots,
        created_at_ms: record.created_at_ms,
        ended_at_ms: record.ended_at_ms.unwrap_or_default(),
        message: record.message.clone(),
        labels: labels.map(pairs).unwrap_or_default(),
        enforced: record.enforced.clone(),
    }
}

fn worker_phase(phase: WorkerPhase) -> v1::WorkerPhase {
    match phase {
        WorkerPhase::Planned => v1::WorkerPhase::Planned,
        WorkerPhase::Starting => v1::WorkerPhase::Starting,
        WorkerPhase::Ready => v1::WorkerPhase::Ready,
        WorkerPhase::Draining => v1::WorkerPhase::Draining,
        WorkerPhase::Gone => v1::WorkerPhase::Gone,
    }
}

/// A provider for the wire.
pub fn provider_message(view: &ProviderView) -> v1::Provider {
    let capabilities = &view.capabilities;
    v1::Provider {
        id: view.id.to_string(),
        kind: capabilities.kind.to_owned(),
        healthy: view.health.healthy,
        message: view.health.message.clone(),
        labels: pairs(&capabilities.labels),
        cpu_millis: capabilities.capacity.cpu_millis,
        memory_bytes: capabilities.capacity.memory_bytes,
        used_cpu_millis: view.used.cpu_millis,
        used_memory_bytes: view.used.memory_bytes,
        max_workers: capabilities.max_workers,
        workers: view.workers,
        isolation: capabilities.isolation.as_str().to_owned(),
        drained: view.drained.clone().unwrap_or_default(),
    }
}

/// How many jobs wait and run, for the wire.
pub fn queue_status_message(status: &QueueStatus) -> v1::GetQueueStatusResponse {
    let jobs = &status.jobs;
    v1::GetQueueStatusResponse {
        ready: jobs.ready,
        delayed: jobs.delayed,
        held: jobs.held,
        assigned: jobs.assigned,
        running: jobs.running,
        oldest_ready_at_ms: jobs.oldest_ready_at_ms.unwrap_or_default(),
        workers: status.workers,
        connected_workers: status.connected,
        slots: status.slots,
        used_slots: status.used_slots,
    }
}

fn pairs(labels: &Labels) -> std::collections::BTreeMap<String, String> {
    let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    labels.iter().map(owned).collect()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> v1::JobSpec {
        v1::JobSpec {
            name: "a job".into(),
            command: vec!["printf".into(), "a b".into(), String::new(), "é\n".into()],
            env: [("K".to_owned(), "v = w".to_owned())].into(),
            workdir: "/tmp".into(),
            cpu_millis: 500,
            memory_bytes: 1 << 30,
            timeout_ms: 1_500,
            retries: 3,
            retry_on: vec!["exit".into(), "lost".into()],
            labels: [("team".to_owned(), "a".to_owned())].into(),
            constraints: vec!["zone in (a,b)".into()],
            provider: "local".into(),
            isolation: "process".into(),
            priority: -5,
            lost_after_ms: 60_000,
            grace_ms: Some(0),
            image: "alpine".into(),
            ..v1::JobSpec::default()
        }
    }

    #[test]
    fn a_specification_survives_the_way_there_and_back() {
        let spec = job_spec(full()).expect("valid");
        assert_eq!(spec_message(&spec), full());
        let script = v1::JobSpec {
            script: "echo hi\n".into(),
            ..v1::JobSpec::default()
        };
        let message = spec_message(&job_spec(script).expect("valid"));
        assert_eq!(message.interpreter, ["/bin/sh"]);
        assert_eq!((message.cpu_millis, message.memory_bytes), (1_000, 512 << 20));
        assert_eq!(
            job_spec(message.clone()).map(|spec| spec_message(&spec)),
            Ok(message)
        );
    }

    #[test]
    fn a_list_is_bounded_and_its_filters_are_kept() {
        let request = v1::ListJobsRequest {
            labels: [("team".to_owned(), "a".to_owned())].into(),
            states: vec![v1::JobState::TimedOut.into()],
            page_size: 7,
            page_token: JobId::from_bytes([3; 16]).to_string(),
        };
        let (filter, size) = job_filter(request.clone()).expect("valid");
        assert_eq!((filter.limit, size), (8, 7));
        assert_eq!(filter.states, ["timed_out"]);
        assert_eq!(filter.before, Some(JobId::from_bytes([3; 16])));
        assert_eq!(filter.labels, request.labels);
        for broken in [
            v1::ListJobsRequest {
                page_size: 1_001,
                ..request.clone()
            },
            v1::ListJobsRequest {
                states: vec![99],
                ..request.clone()
            },
            v1::ListJobsRequest {
                states: vec![0],
                ..request.clone()
            },
            v1::ListJobsRequest {
                page_token: "../x".into(),
                ..request
            },
        ] {
            assert!(matches!(job_filter(broken), Err(Refused::Invalid(_))));
        }
    }

    #[test]
    fn a_page_ends_before_it_is_too_large() {
        let record = |number: u8, script: usize| JobRecord {
            id: JobId::from_bytes([number; 16]),
            namespace: Namespace::default_namespace(),
            spec: job_spec(v1::JobSpec {
                script: "x".repeat(script),
                ..v1::JobSpec::default()
            })
            .expect("valid"),
            job: hodei_server_domain::job::state::Job::queued(0),
            attempts: Vec::new(),
            retry_of: None,
            created_at_ms: 0,
            ended_at_ms: None,
        };
        let records: Vec<_> = (0..5).map(|number| record(number, 900 << 10)).collect();
        let page = job_page(&records, 4, 0);
        assert_eq!(page.jobs.len(), 2);
        assert!(page.encoded_len() <= MAX_PAGE_BYTES + 100);
        assert_eq!(page.next_page_token, records[1].id.to_string());
        let last = job_page(&records[3..], 4, 0);
        assert_eq!((last.jobs.len(), last.next_page_token.as_str()), (2, ""));
        let small: Vec<_> = (0..5).map(|number| record(number, 1)).collect();
        let page = job_page(&small, 4, 0);
        assert_eq!(
            (page.jobs.len(), page.next_page_token),
            (4, small[3].id.to_string())
        );
    }

    #[test]
    fn what_is_no_id_names_nothing() {
        let refused = job_id("../../etc/passwd").expect_err("no id");
        assert_eq!(refused.reason(), "not_found");
    }
}
