//! Frames from one side's types into the other's.

use std::time::Duration;

use hodei_server_application::output::Ingested;
use hodei_server_application::ports::link as server;
use hodei_server_domain::job::spec::Command as SpecCommand;
use hodei_server_domain::job::state::WorkerResult;
use hodei_shared::ids::AttemptKey;
use hodei_shared::resources::Resources;
use hodei_worker_domain::assignment::{Assignment, Command};
use hodei_worker_domain::attempt::{AttemptResult, EndKind};
use hodei_worker_domain::frame as worker;

/// What the server hears.
pub(super) fn to_server(frame: worker::WorkerFrame) -> server::FromWorker {
    match frame {
        worker::WorkerFrame::Hello(hello) => server::FromWorker::Hello(server::Hello {
            room: Resources {
                cpu_millis: hello.cpu_millis,
                memory_bytes: hello.memory_bytes,
            },
            slots: hello.slots,
            enforced: hello.enforced,
            held: hello.held.into_iter().map(held).collect(),
        }),
        worker::WorkerFrame::Beat(n) => server::FromWorker::Beat { n },
        worker::WorkerFrame::Running { key, started_at_ms } => {
            server::FromWorker::Running { key, started_at_ms }
        }
        worker::WorkerFrame::Result(result) => server::FromWorker::Result(self::result(result)),
        worker::WorkerFrame::NeverStarted { key, message } => {
            server::FromWorker::NeverStarted { key, message }
        }
        worker::WorkerFrame::Leaving => server::FromWorker::Leaving,
    }
}

fn held(held: worker::Held) -> server::HeldAttempt {
    let state = match held.state {
        worker::HeldState::Accepted => server::HeldState::Accepted,
        worker::HeldState::Running => server::HeldState::Running,
        worker::HeldState::Ended => server::HeldState::Ended,
    };
    server::HeldAttempt { key: held.key, state }
}

fn result(result: AttemptResult) -> server::AttemptResult {
    let how = match result.kind {
        EndKind::Exited => WorkerResult::Exited(result.exit_code.unwrap_or_default()),
        EndKind::Signalled => WorkerResult::Signalled(result.signal.unwrap_or_default()),
        EndKind::TimedOut => WorkerResult::TimedOut,
        EndKind::Cancelled => WorkerResult::Cancelled,
        EndKind::StartFailed => WorkerResult::StartFailed {
            exit_code: result.exit_code,
            message: result.message,
        },
        EndKind::LeaseLost => WorkerResult::LeaseLost,
    };
    server::AttemptResult {
        key: result.key,
        result: how,
        started_at_ms: Some(result.started_at_ms).filter(|at| *at > 0),
        ended_at_ms: result.ended_at_ms,
        output_end: result.output_end,
    }
}

/// What the worker hears.
pub(super) fn to_worker(frame: server::ToWorker) -> worker::ServerFrame {
    match frame {
        server::ToWorker::Welcome {
            session,
            beat_interval_ms,
            addresses,
            now_ms,
        } => {
            let beat_interval = Duration::from_millis(beat_interval_ms);
            worker::ServerFrame::Welcome {
                session,
                beat_interval,
                addresses,
                now_ms,
            }
        }
        server::ToWorker::Held { key, verdict } => {
            let verdict = match verdict {
                server::HeldVerdict::Continue => worker::HeldVerdict::Continue,
                server::HeldVerdict::Stop => worker::HeldVerdict::Stop,
                server::HeldVerdict::Recorded => worker::HeldVerdict::Recorded,
            };
            worker::ServerFrame::HelloAnswer { key, verdict }
        }
        server::ToWorker::Beat { n } => worker::ServerFrame::BeatAnswer(n),
        server::ToWorker::Assign(assignment) => worker::ServerFrame::Assign(self::assignment(*assignment)),
        server::ToWorker::Stop { key, kind } => {
            let kind = match kind {
                server::StopKind::Cancel => worker::StopKind::Cancel,
                server::StopKind::Stale => worker::StopKind::Stale,
            };
            worker::ServerFrame::Stop { key, kind }
        }
        server::ToWorker::Result { key, verdict } => {
            let verdict = match verdict {
                server::ResultVerdict::Applied => worker::ResultVerdict::Applied,
                server::ResultVerdict::Same => worker::ResultVerdict::Same,
                server::ResultVerdict::Stale => worker::ResultVerdict::Stale,
            };
            worker::ServerFrame::ResultAnswer { key, verdict }
        }
        server::ToWorker::Drain => worker::ServerFrame::Drain,
    }
}

fn assignment(from: server::Assignment) -> Assignment {
    let command = match from.spec.command {
        SpecCommand::Argv(argv) => Command::Argv(argv),
        SpecCommand::Script { text, interpreter } => Command::Script { text, interpreter },
    };
    Assignment {
        env: from.spec.env,
        workdir: from.spec.workdir,
        timeout: from.spec.timeout,
        grace: from.spec.grace,
        lost_after: from.spec.lost_after,
        namespace: from.namespace,
        attempt: from.attempt,
        repeatable: from.repeatable,
        ..Assignment::new(from.key, command)
    }
}

/// The answer to a batch of output; `None` if the batch was an offence.
pub(super) fn output_answer(key: AttemptKey, ingested: Ingested, start: u64) -> Option<worker::OutputAnswer> {
    let (end, verdict) = match ingested {
        Ingested::Stored(end) => (end, worker::OutputVerdict::Stored),
        Ingested::Stale => (0, worker::OutputVerdict::Stale),
        Ingested::Retry => (start, worker::OutputVerdict::Retry),
        Ingested::Offence => return None,
    };
    Some(worker::OutputAnswer { key, end, verdict })
}
