//! The frames of a worker's session, and output.

use hodei_jobs::transport::MAX_OUTPUT_BATCH_BYTES;
use hodei_jobs::v1;
use hodei_jobs::v1::server_frame::Frame as ServerKind;
use hodei_jobs::v1::worker_frame::Frame as WorkerKind;
use hodei_server_application::input::Pulled;
use hodei_server_application::output::Ingested;
use hodei_server_application::ports::link::{
    AttemptResult, FromWorker, HeldAttempt, HeldState, HeldVerdict, Hello, ResultVerdict, StopKind, ToWorker,
};
use hodei_server_domain::job::end::WorkerResult;
use hodei_shared::ids::{AttemptKey, Lease, Rank};
use hodei_shared::offsets::{Piece, Run, Stream};
use hodei_shared::resources::Resources;
use hodei_shared::{Invalid, text};

use super::spec_message;

/// What a worker may remember at once, and how many words it may say about its kernel.
const MAX_HELD: usize = 10_000;
const MAX_ENFORCED: usize = 64;
/// The most stretches of one stream in a batch of output: one for each byte is possible, more is nonsense.
const MAX_RUNS: usize = MAX_OUTPUT_BATCH_BYTES;

fn missing(field: &'static str) -> Invalid {
    Invalid::new(field, "", "is missing")
}

/// A claim.
///
/// # Errors
/// [`Invalid`] if it is missing or names no job.
pub fn attempt_key(key: Option<v1::AttemptKey>) -> Result<AttemptKey, Invalid> {
    let key = key.ok_or_else(|| missing("key"))?;
    Ok(AttemptKey {
        job: key.job_id.parse()?,
        lease: Lease(key.lease),
        rank: Rank(key.rank),
    })
}

/// A claim for the wire.
pub fn key_message(key: AttemptKey) -> v1::AttemptKey {
    v1::AttemptKey {
        job_id: key.job.to_string(),
        lease: key.lease.0,
        rank: key.rank.0,
    }
}

/// What a worker says. Its texts are escaped and shortened here.
///
/// # Errors
/// [`Invalid`] if a worker of ours would never say that.
pub fn from_worker(frame: v1::WorkerFrame) -> Result<FromWorker, Invalid> {
    Ok(match frame.frame.ok_or_else(|| missing("frame"))? {
        WorkerKind::Hello(hello) => FromWorker::Hello(self::hello(hello)?),
        WorkerKind::Beat(beat) => FromWorker::Beat { n: beat.n },
        WorkerKind::Running(running) => FromWorker::Running {
            key: attempt_key(running.key)?,
            started_at_ms: running.started_at_ms,
        },
        WorkerKind::Result(result) => FromWorker::Result(attempt_result(result)?),
        WorkerKind::NeverStarted(never) => FromWorker::NeverStarted {
            key: attempt_key(never.key)?,
            message: text::one_line(&never.message),
        },
        WorkerKind::Leaving(v1::Leaving {}) => FromWorker::Leaving,
    })
}

fn hello(hello: v1::Hello) -> Result<Hello, Invalid> {
    if hello.held.len() > MAX_HELD || hello.enforced.len() > MAX_ENFORCED {
        return Err(Invalid::new(
            "hello",
            hello.held.len().to_string(),
            "names too much",
        ));
    }
    Ok(Hello {
        room: Resources {
            cpu_millis: hello.cpu_millis,
            memory_bytes: hello.memory_bytes,
        },
        slots: hello.slots,
        enforced: hello
            .enforced
            .iter()
            .map(|word| text::shorten(word, 80))
            .collect(),
        held: hello
            .held
            .into_iter()
            .map(held_attempt)
            .collect::<Result<_, _>>()?,
    })
}

fn held_attempt(held: v1::HeldAttempt) -> Result<HeldAttempt, Invalid> {
    let state = match held.state() {
        v1::HeldState::Accepted => HeldState::Accepted,
        v1::HeldState::Running => HeldState::Running,
        v1::HeldState::Ended => HeldState::Ended,
        v1::HeldState::Unspecified => return Err(missing("state")),
    };
    Ok(HeldAttempt {
        key: attempt_key(held.key)?,
        state,
    })
}

fn attempt_result(result: v1::AttemptResult) -> Result<AttemptResult, Invalid> {
    let code = || result.exit_code.ok_or_else(|| missing("exit_code"));
    let worker_result = match result.kind() {
        v1::EndKind::Exited => WorkerResult::Exited(code()?),
        v1::EndKind::Signalled => WorkerResult::Signalled(result.signal.ok_or_else(|| missing("signal"))?),
        v1::EndKind::TimedOut => WorkerResult::TimedOut,
        v1::EndKind::Cancelled => WorkerResult::Cancelled,
        v1::EndKind::StartFailed => WorkerResult::StartFailed {
            exit_code: result.exit_code,
            message: text::one_line(&result.message),
        },
        v1::EndKind::LeaseLost => WorkerResult::LeaseLost,
        v1::EndKind::Unspecified => return Err(missing("kind")),
    };
    Ok(AttemptResult {
        key: attempt_key(result.key)?,
        result: worker_result,
        started_at_ms: Some(result.started_at_ms).filter(|at| *at != 0),
        ended_at_ms: result.ended_at_ms,
        output_end: result.output_end,
    })
}

/// What a worker is told, for the wire.
pub fn to_worker(frame: ToWorker) -> v1::ServerFrame {
    let kind = match frame {
        ToWorker::Welcome {
            session,
            beat_interval_ms,
            addresses,
            now_ms,
        } => ServerKind::Welcome(v1::Welcome {
            session,
            beat_interval_ms,
            addresses,
            now_ms,
        }),
        ToWorker::Held { key, verdict } => ServerKind::Held(v1::HelloAnswer {
            key: Some(key_message(key)),
            verdict: held_verdict(verdict).into(),
        }),
        ToWorker::Beat { n } => ServerKind::Beat(v1::BeatAnswer { n }),
        ToWorker::Assign(assignment) => ServerKind::Assign(v1::Assign {
            key: Some(key_message(assignment.key)),
            spec: Some(spec_message(&assignment.spec)),
            namespace: assignment.namespace.to_string(),
            attempt: assignment.attempt,
            repeatable: assignment.repeatable,
        }),
        ToWorker::Stop { key, kind } => ServerKind::Stop(v1::Stop {
            key: Some(key_message(key)),
            kind: stop_kind(kind).into(),
        }),
        ToWorker::Result { key, verdict } => ServerKind::Result(v1::ResultAnswer {
            key: Some(key_message(key)),
            verdict: result_verdict(verdict).into(),
        }),
        ToWorker::Drain => ServerKind::Drain(v1::Drain {}),
        ToWorker::Refused { message } => ServerKind::Refused(v1::Refused { message }),
    };
    v1::ServerFrame { frame: Some(kind) }
}

fn held_verdict(verdict: HeldVerdict) -> v1::HeldVerdict {
    match verdict {
        HeldVerdict::Continue => v1::HeldVerdict::Continue,
        HeldVerdict::Stop => v1::HeldVerdict::Stop,
        HeldVerdict::Recorded => v1::HeldVerdict::Recorded,
    }
}

fn stop_kind(kind: StopKind) -> v1::StopKind {
    match kind {
        StopKind::Cancel => v1::StopKind::Cancel,
        StopKind::Stale => v1::StopKind::Stale,
    }
}

fn result_verdict(verdict: ResultVerdict) -> v1::ResultVerdict {
    match verdict {
        ResultVerdict::Applied => v1::ResultVerdict::Applied,
        ResultVerdict::Same => v1::ResultVerdict::Same,
        ResultVerdict::Stale => v1::ResultVerdict::Stale,
    }
}

/// A batch of output from a worker.
///
/// # Errors
/// [`Invalid`] if it is too large, or its runs do not add up to its bytes.
pub fn output_batch(batch: v1::OutputBatch) -> Result<(AttemptKey, Piece), Invalid> {
    let key = attempt_key(batch.key)?;
    let piece = batch.piece.ok_or_else(|| missing("piece"))?;
    let broken = |rule: &str| Invalid::new("output", piece.data.len().to_string(), rule);
    if piece.data.len() > MAX_OUTPUT_BATCH_BYTES || piece.runs.len() > MAX_RUNS {
        return Err(broken("bytes are too many for one batch"));
    }
    if piece.start.checked_add(piece.data.len() as u64).is_none() {
        return Err(broken("bytes reach beyond the last position"));
    }
    let mut length = 0_u64;
    let mut runs = Vec::with_capacity(piece.runs.len());
    for run in &piece.runs {
        let stream = match run.stream() {
            v1::Stream::Stdout => Stream::Stdout,
            v1::Stream::Stderr => Stream::Stderr,
            v1::Stream::Unspecified => return Err(missing("stream")),
        };
        // Lengths come from outside, so their sum may not fit.
        length = length
            .checked_add(run.length)
            .ok_or_else(|| broken("bytes do not match the runs"))?;
        runs.push(Run {
            stream,
            len: run.length,
            at_ms: run.at_ms,
        });
    }
    if length != piece.data.len() as u64 {
        return Err(broken("bytes do not match the runs"));
    }
    let piece = Piece {
        start: piece.start,
        data: piece.data.into(),
        runs,
    };
    Ok((key, piece))
}

/// The answer to a batch of output; `None`: the worker may not have sent it. `resend_from` is where the worker
/// goes on after what could not be stored.
pub fn output_answer(key: AttemptKey, ingested: Ingested, resend_from: u64) -> Option<v1::OutputAnswer> {
    let (verdict, end) = match ingested {
        Ingested::Stored(end) => (v1::OutputVerdict::Stored, end),
        Ingested::Stale => (v1::OutputVerdict::Stale, 0),
        Ingested::Retry => (v1::OutputVerdict::Retry, resend_from),
        Ingested::Offence => return None,
    };
    Some(v1::OutputAnswer {
        key: Some(key_message(key)),
        end,
        verdict: verdict.into(),
    })
}

/// What a worker asks for of an attempt's input.
///
/// # Errors
/// [`Invalid`] if it names no attempt.
pub fn input_request(request: v1::ReadInputRequest) -> Result<(AttemptKey, u64), Invalid> {
    Ok((attempt_key(request.key)?, request.offset))
}

/// The next bytes of an attempt's input.
pub fn input_answer(pulled: Pulled) -> v1::ReadInputResponse {
    let (data, verdict) = match pulled {
        Pulled::More(data) => (data, v1::InputVerdict::More),
        Pulled::Last(data) => (data, v1::InputVerdict::Last),
        Pulled::Stale => (Vec::new(), v1::InputVerdict::Stale),
    };
    v1::ReadInputResponse {
        data,
        verdict: verdict.into(),
    }
}

/// A piece of output for a reader.
pub fn piece_message(piece: Piece) -> v1::OutputPiece {
    let run = |run: &Run| v1::OutputRun {
        stream: match run.stream {
            Stream::Stdout => v1::Stream::Stdout,
            Stream::Stderr => v1::Stream::Stderr,
        }
        .into(),
        length: run.len,
        at_ms: run.at_ms,
    };
    v1::OutputPiece {
        start: piece.start,
        runs: piece.runs.iter().map(run).collect(),
        data: piece.data.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> v1::AttemptKey {
        v1::AttemptKey {
            job_id: hodei_shared::ids::JobId::from_bytes([1; 16]).to_string(),
            lease: 4,
            rank: 0,
        }
    }

    fn batch(data: &'static [u8], lengths: &[u64]) -> v1::OutputBatch {
        let run = |length: &u64| v1::OutputRun {
            stream: v1::Stream::Stderr.into(),
            length: *length,
            at_ms: 5,
        };
        v1::OutputBatch {
            key: Some(key()),
            piece: Some(v1::OutputPiece {
                start: 10,
                data: data.into(),
                runs: lengths.iter().map(run).collect(),
            }),
        }
    }

    #[test]
    fn output_survives_the_way_and_lies_are_refused() {
        let sent = batch(b"ab\xff\x00", &[1, 3]);
        let (got, piece) = output_batch(sent.clone()).expect("consistent");
        assert_eq!(key_message(got), key());
        assert_eq!(Some(piece_message(piece)), sent.piece);
        for lengths in [&[1, 2][..], &[5], &[], &[u64::MAX, 5]] {
            assert!(output_batch(batch(b"abcd", lengths)).is_err(), "{lengths:?}");
        }
        let mut beyond = batch(b"abcd", &[4]);
        if let Some(piece) = &mut beyond.piece {
            piece.start = u64::MAX - 1;
        }
        assert!(output_batch(beyond).is_err());
        assert!(
            output_batch(v1::OutputBatch {
                key: None,
                ..batch(b"a", &[1])
            })
            .is_err()
        );
    }

    #[test]
    fn every_end_of_a_process_is_read() {
        let result = |kind: v1::EndKind, exit_code, signal| {
            let result = v1::AttemptResult {
                key: Some(key()),
                kind: kind.into(),
                exit_code,
                signal,
                message: "no such file\n".into(),
                ..v1::AttemptResult::default()
            };
            attempt_result(result).map(|result| result.result)
        };
        let message = "no such file\\n".to_owned();
        for (kind, code, signal, want) in [
            (v1::EndKind::Exited, Some(3), None, Some(WorkerResult::Exited(3))),
            (v1::EndKind::Exited, None, None, None),
            (
                v1::EndKind::Signalled,
                None,
                Some(9),
                Some(WorkerResult::Signalled(9)),
            ),
            (v1::EndKind::Signalled, Some(1), None, None),
            (v1::EndKind::TimedOut, None, None, Some(WorkerResult::TimedOut)),
            (v1::EndKind::Cancelled, None, None, Some(WorkerResult::Cancelled)),
            (
                v1::EndKind::StartFailed,
                Some(127),
                None,
                Some(WorkerResult::StartFailed {
                    exit_code: Some(127),
                    message,
                }),
            ),
            (v1::EndKind::LeaseLost, None, None, Some(WorkerResult::LeaseLost)),
            (v1::EndKind::Unspecified, Some(0), None, None),
        ] {
            assert_eq!(result(kind, code, signal).ok(), want, "{kind:?}");
        }
    }

    #[test]
    fn an_offence_has_no_answer() {
        let key = attempt_key(Some(key())).expect("a key");
        assert_eq!(output_answer(key, Ingested::Offence, 0), None);
        let answer = output_answer(key, Ingested::Retry, 7).expect("an answer");
        assert_eq!((answer.verdict(), answer.end), (v1::OutputVerdict::Retry, 7));
    }
}
