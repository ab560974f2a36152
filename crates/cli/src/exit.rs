//! What `run` and `wait` end with, and the line that says why.

use hodei_jobs::{v1, view};
use hodei_shared::text;

/// Hodei itself failed, or the job's end says nothing about its command.
pub(crate) const HODEI_FAILED: u8 = 125;
/// The job was cancelled.
pub(crate) const CANCELLED: u8 = 130;
/// The command was told to end, and cancelled the job.
pub(crate) const TERMINATED: u8 = 143;
/// The terminal went away; the job goes on.
pub(crate) const HUNG_UP: u8 = 129;
/// Nobody read the output any more.
pub(crate) const READER_GONE: u8 = 141;
/// A wrong flag or value.
pub(crate) const USAGE: u8 = 2;

/// Time was up: the attempt's, or that of `job wait --timeout`.
pub(crate) const TIMED_OUT: u8 = 124;
const SIGNAL_BASE: i32 = 128;

/// Whether nothing about the job's state will change any more.
pub(crate) fn is_terminal(job: &v1::Job) -> bool {
    use v1::JobState::{Cancelled, Failed, Succeeded, TimedOut};
    matches!(job.state(), Succeeded | Failed | Cancelled | TimedOut)
}

/// The exit status for an ended job.
pub(crate) fn status(job: &v1::Job) -> u8 {
    match job.state() {
        v1::JobState::Succeeded => 0,
        v1::JobState::Cancelled => CANCELLED,
        v1::JobState::TimedOut => TIMED_OUT,
        v1::JobState::Failed => failed(job),
        v1::JobState::Unspecified | v1::JobState::Queued | v1::JobState::Assigned | v1::JobState::Running => {
            HODEI_FAILED
        }
    }
}

/// A failure never looks like success: without a failing code of its own the job counts as failed by Hodei.
fn failed(job: &v1::Job) -> u8 {
    let code = job
        .exit_code
        .and_then(|code| u8::try_from(code).ok())
        .filter(|code| *code != 0);
    let signal = job
        .signal
        .and_then(|signal| u8::try_from(SIGNAL_BASE + signal).ok());
    match job.reason.as_str() {
        "lost" | "provider_error" => HODEI_FAILED,
        "start_failed" | "image_error" => code
            .filter(|code| matches!(code, 126 | 127))
            .unwrap_or(HODEI_FAILED),
        _ => signal.or(code).unwrap_or(HODEI_FAILED),
    }
}

/// The line that `run` and `wait` print on stderr where the exit status alone does not say what happened.
pub(crate) fn explanation(job: &v1::Job) -> Option<String> {
    if job.state() == v1::JobState::Succeeded || job.reason == "exit_code" {
        return None;
    }
    let state = view::job_state(job.state()).replace('_', " ");
    let mut said = format!("job {} {state}", job.id);
    let reason = match job.signal {
        Some(signal) if job.reason == "signal" => format!("signal {signal}"),
        _ => job.reason.clone(),
    };
    for part in [&reason, &job.message] {
        if !part.is_empty() && *part != said && *part != state {
            said.push_str(": ");
            said.push_str(&text::one_line(part));
        }
    }
    let program = job.spec.as_ref().and_then(|spec| spec.command.first());
    if let Some(program) =
        program.filter(|program| job.reason == "start_failed" && !job.message.contains(*program))
    {
        said.push_str(&format!(" (`{}`)", text::shorten(program, 200)));
    }
    Some(said)
}

#[cfg(test)]
mod tests {
    use v1::JobState::{Assigned, Cancelled, Failed, Queued, Running, Succeeded, TimedOut, Unspecified};

    use super::*;

    fn job(state: v1::JobState, reason: &str, exit_code: Option<i32>, signal: Option<i32>) -> v1::Job {
        v1::Job {
            id: "ID".into(),
            state: state.into(),
            reason: reason.into(),
            exit_code,
            signal,
            spec: Some(v1::JobSpec {
                command: vec!["no-such-program".into()],
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn every_end_has_its_status() {
        for (state, reason, exit_code, signal, want) in [
            (Succeeded, "", Some(0), None, 0),
            (Succeeded, "exit_code", Some(0), None, 0),
            (Succeeded, "output_incomplete", Some(0), None, 0),
            (Failed, "exit_code", Some(7), None, 7),
            (Failed, "exit_code", Some(255), None, 255),
            (Failed, "signal", None, Some(9), 137),
            (Failed, "signal", None, Some(15), 143),
            (Failed, "out_of_memory", None, Some(9), 137),
            (Failed, "out_of_memory", Some(1), None, 1),
            (Failed, "out_of_memory", None, None, 125),
            (Failed, "start_failed", Some(127), None, 127),
            (Failed, "start_failed", Some(126), None, 126),
            (Failed, "start_failed", None, None, 125),
            (Failed, "start_failed", Some(1), None, 125),
            (Failed, "image_error", Some(127), None, 127),
            (Failed, "image_error", None, None, 125),
            (Failed, "lost", None, None, 125),
            (Failed, "lost", Some(1), Some(9), 125),
            (Failed, "provider_error", None, None, 125),
            (Failed, "output_incomplete", Some(3), None, 3),
            (Failed, "output_incomplete", Some(0), None, 125),
            (Failed, "a_new_word", None, None, 125),
            (Failed, "exit_code", Some(300), None, 125),
            (Failed, "signal", None, Some(1000), 125),
            (Cancelled, "cancelled", None, Some(15), 130),
            (Cancelled, "dependency_failed", None, None, 130),
            (TimedOut, "timeout", None, Some(15), 124),
            (Queued, "waiting_for_room", None, None, 125),
            (Assigned, "", None, None, 125),
            (Running, "", None, None, 125),
            (Unspecified, "", None, None, 125),
        ] {
            let got = status(&job(state, reason, exit_code, signal));
            assert_eq!(got, want, "{state:?} {reason} {exit_code:?} {signal:?}");
        }
    }

    #[test]
    fn only_final_states_are_terminal() {
        for (state, want) in [
            (Unspecified, false),
            (Queued, false),
            (Assigned, false),
            (Running, false),
            (Succeeded, true),
            (Failed, true),
            (Cancelled, true),
            (TimedOut, true),
        ] {
            assert_eq!(is_terminal(&job(state, "", None, None)), want, "{state:?}");
        }
    }

    #[test]
    fn the_reason_is_named_where_the_status_does_not_say_it() {
        assert_eq!(explanation(&job(Succeeded, "", Some(0), None)), None);
        assert_eq!(explanation(&job(Failed, "exit_code", Some(7), None)), None);
        let killed = explanation(&job(Failed, "signal", None, Some(9))).expect("a line");
        assert_eq!(killed, "job ID failed: signal 9");
        let mut missing = job(Failed, "start_failed", Some(127), None);
        let said = explanation(&missing).expect("a line");
        assert_eq!(said, "job ID failed: start_failed (`no-such-program`)");
        missing.message = "no-such-program: not found in PATH".into();
        let said = explanation(&missing).expect("a line");
        assert_eq!(
            said,
            "job ID failed: start_failed: no-such-program: not found in PATH"
        );
        let cancelled = explanation(&job(Cancelled, "cancelled", None, None)).expect("a line");
        assert_eq!(cancelled, "job ID cancelled");
        assert_eq!(
            explanation(&job(TimedOut, "timeout", None, None)).expect("a line"),
            "job ID timed out: timeout"
        );
    }
}
