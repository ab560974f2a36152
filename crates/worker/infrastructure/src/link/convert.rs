//! The worker's one place between messages and the domain. What does not parse is passed over, never guessed.

use std::time::Duration;

use hodei_jobs::v1;
use hodei_jobs::v1::server_frame::Frame as ServerMessage;
use hodei_jobs::v1::worker_frame::Frame as WorkerMessage;
use hodei_shared::ids::{AttemptKey, Lease, Namespace, Rank};
use hodei_shared::offsets::Stream;
use hodei_worker_application::ports::{DialError, Input};
use hodei_worker_domain::assignment::{Assignment, Command};
use hodei_worker_domain::attempt::{AttemptResult, EndKind};
use hodei_worker_domain::frame::{
    Held, HeldState, HeldVerdict, Hello, OutputAnswer, OutputBatch, OutputVerdict, ResultVerdict,
    ServerFrame, StopKind, WorkerFrame,
};
use tonic::{Code, Status};

const DEFAULT_GRACE: Duration = Duration::from_secs(10);
const DEFAULT_LOST_AFTER: Duration = Duration::from_secs(300);

/// A status as the session sees it: only a definite word about this worker is a refusal.
pub fn error(status: &Status) -> DialError {
    let text = format!("{}: {}", status.code().description(), status.message());
    match status.code() {
        Code::PermissionDenied | Code::Unauthenticated | Code::InvalidArgument | Code::Unimplemented => {
            DialError::Refused(text)
        }
        _ => DialError::Unavailable(text),
    }
}

fn key_out(key: AttemptKey) -> Option<v1::AttemptKey> {
    Some(v1::AttemptKey {
        job_id: key.job.to_string(),
        lease: key.lease.0,
        rank: key.rank.0,
    })
}

fn key_in(key: Option<v1::AttemptKey>) -> Option<AttemptKey> {
    let key = key?;
    Some(AttemptKey {
        job: key.job_id.parse().ok()?,
        lease: Lease(key.lease),
        rank: Rank(key.rank),
    })
}

/// A frame as a message.
pub fn worker_frame(frame: WorkerFrame) -> v1::WorkerFrame {
    let frame = match frame {
        WorkerFrame::Hello(hello) => WorkerMessage::Hello(hello_out(hello)),
        WorkerFrame::Beat(n) => WorkerMessage::Beat(v1::Beat { n }),
        WorkerFrame::Running { key, started_at_ms } => WorkerMessage::Running(v1::AttemptRunning {
            key: key_out(key),
            started_at_ms,
        }),
        WorkerFrame::Result(result) => WorkerMessage::Result(result_out(result)),
        WorkerFrame::NeverStarted { key, message } => WorkerMessage::NeverStarted(v1::NeverStarted {
            key: key_out(key),
            message,
        }),
        WorkerFrame::Leaving => WorkerMessage::Leaving(v1::Leaving {}),
    };
    v1::WorkerFrame { frame: Some(frame) }
}

fn hello_out(hello: Hello) -> v1::Hello {
    let held = |held: Held| v1::HeldAttempt {
        key: key_out(held.key),
        state: match held.state {
            HeldState::Accepted => v1::HeldState::Accepted,
            HeldState::Running => v1::HeldState::Running,
            HeldState::Ended => v1::HeldState::Ended,
        }
        .into(),
        output_end: held.output_end,
    };
    v1::Hello {
        cpu_millis: hello.cpu_millis,
        memory_bytes: hello.memory_bytes,
        slots: hello.slots,
        enforced: hello.enforced,
        held: hello.held.into_iter().map(held).collect(),
        version: hello.version,
    }
}

fn result_out(result: AttemptResult) -> v1::AttemptResult {
    let kind = match result.kind {
        EndKind::Exited => v1::EndKind::Exited,
        EndKind::Signalled => v1::EndKind::Signalled,
        EndKind::TimedOut => v1::EndKind::TimedOut,
        EndKind::Cancelled => v1::EndKind::Cancelled,
        EndKind::StartFailed => v1::EndKind::StartFailed,
        EndKind::LeaseLost => v1::EndKind::LeaseLost,
    };
    v1::AttemptResult {
        key: key_out(result.key),
        kind: kind.into(),
        exit_code: result.exit_code,
        signal: result.signal,
        message: result.message,
        started_at_ms: result.started_at_ms,
        ended_at_ms: result.ended_at_ms,
        output_end: result.output_end,
    }
}

/// A batch as a message.
pub fn output_batch(batch: OutputBatch) -> v1::OutputBatch {
    let runs = batch.piece.runs.iter().map(|run| v1::OutputRun {
        stream: match run.stream {
            Stream::Stdout => v1::Stream::Stdout,
            Stream::Stderr => v1::Stream::Stderr,
        }
        .into(),
        length: run.len,
        at_ms: run.at_ms,
    });
    let runs = runs.collect();
    v1::OutputBatch {
        key: key_out(batch.key),
        piece: Some(v1::OutputPiece {
            start: batch.piece.start,
            data: batch.piece.data.into(),
            runs,
        }),
    }
}

/// An answer to a batch; none if it does not parse.
pub fn output_answer(answer: v1::OutputAnswer) -> Option<OutputAnswer> {
    Some(OutputAnswer {
        verdict: match answer.verdict() {
            v1::OutputVerdict::Stored => OutputVerdict::Stored,
            v1::OutputVerdict::Stale => OutputVerdict::Stale,
            v1::OutputVerdict::Retry => OutputVerdict::Retry,
            v1::OutputVerdict::Unspecified => return None,
        },
        end: answer.end,
        key: key_in(answer.key)?,
    })
}

/// A message as a frame; none if it does not parse.
pub fn server_frame(message: v1::ServerFrame) -> Option<ServerFrame> {
    Some(match message.frame? {
        ServerMessage::Welcome(welcome) => ServerFrame::Welcome {
            session: welcome.session,
            beat_interval: Duration::from_millis(welcome.beat_interval_ms),
            addresses: welcome.addresses,
            now_ms: welcome.now_ms,
        },
        ServerMessage::Beat(answer) => ServerFrame::BeatAnswer(answer.n),
        ServerMessage::Assign(assign) => ServerFrame::Assign(assignment(assign)?),
        ServerMessage::Stop(stop) => ServerFrame::Stop {
            kind: match stop.kind() {
                v1::StopKind::Cancel => StopKind::Cancel,
                v1::StopKind::Stale => StopKind::Stale,
                v1::StopKind::Unspecified => return None,
            },
            key: key_in(stop.key)?,
        },
        ServerMessage::Result(answer) => ServerFrame::ResultAnswer {
            verdict: match answer.verdict() {
                v1::ResultVerdict::Applied => ResultVerdict::Applied,
                v1::ResultVerdict::Same => ResultVerdict::Same,
                v1::ResultVerdict::Stale => ResultVerdict::Stale,
                v1::ResultVerdict::Unspecified => return None,
            },
            key: key_in(answer.key)?,
        },
        ServerMessage::Held(answer) => ServerFrame::HelloAnswer {
            verdict: match answer.verdict() {
                v1::HeldVerdict::Continue => HeldVerdict::Continue,
                v1::HeldVerdict::Stop => HeldVerdict::Stop,
                v1::HeldVerdict::Recorded => HeldVerdict::Recorded,
                v1::HeldVerdict::Unspecified => return None,
            },
            key: key_in(answer.key)?,
        },
        ServerMessage::Drain(v1::Drain {}) => ServerFrame::Drain,
        ServerMessage::Addresses(list) => ServerFrame::Addresses(list.addresses),
        ServerMessage::Refused(refused) => ServerFrame::Refused(refused.message),
    })
}

/// What is asked for of an attempt's input.
pub fn input_request(key: AttemptKey, offset: u64) -> v1::ReadInputRequest {
    v1::ReadInputRequest {
        key: key_out(key),
        offset,
    }
}

/// A part of an attempt's input.
pub fn input(answer: v1::ReadInputResponse) -> Option<Input> {
    Some(match answer.verdict() {
        v1::InputVerdict::More => Input::More(answer.data),
        v1::InputVerdict::Last => Input::Last(answer.data),
        v1::InputVerdict::Stale => Input::Stale,
        v1::InputVerdict::Unspecified => return None,
    })
}

fn assignment(assign: v1::Assign) -> Option<Assignment> {
    let spec = assign.spec?;
    let input = spec.stdin() != v1::StdinMode::Unspecified;
    let millis = |ms: u64| (ms > 0).then(|| Duration::from_millis(ms));
    let command = if spec.command.is_empty() {
        Command::Script {
            text: spec.script,
            interpreter: if spec.interpreter.is_empty() {
                vec!["/bin/sh".to_owned()]
            } else {
                spec.interpreter
            },
        }
    } else {
        Command::Argv(spec.command)
    };
    Some(Assignment {
        key: key_in(assign.key)?,
        command,
        env: spec.env.into_iter().collect(),
        workdir: Some(spec.workdir).filter(|path| !path.is_empty()),
        timeout: millis(spec.timeout_ms),
        grace: spec.grace_ms.map_or(DEFAULT_GRACE, Duration::from_millis),
        lost_after: millis(spec.lost_after_ms).unwrap_or(DEFAULT_LOST_AFTER),
        namespace: Namespace::new(assign.namespace).ok()?,
        attempt: assign.attempt,
        repeatable: assign.repeatable,
        input,
        merge: spec.merge,
    })
}
