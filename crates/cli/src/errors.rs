//! What the server's refusals mean, in words for people: what failed, why, and what to do next.

use std::error::Error;

use anyhow::anyhow;
use hodei_shared::text;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// The reader of our output has gone: nothing more can be printed, and nobody wants an error about it.
#[derive(Debug)]
pub(crate) struct ReaderGone;

impl std::fmt::Display for ReaderGone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("nobody reads the output any more")
    }
}

impl Error for ReaderGone {}

/// Whether the same call may succeed soon: the connection broke, or the server is away or overloaded.
pub(crate) fn is_transient(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable | Code::Aborted | Code::ResourceExhausted => true,
        // A connection that breaks within a call shows as one of these, with the cause behind it.
        Code::Unknown | Code::Internal | Code::Cancelled => status.source().is_some(),
        _ => false,
    }
}

/// Whether a call that is repeated in the background, for as long as its command runs, is worth another try: a
/// server that was too slow once may be faster next time.
pub(crate) fn is_worth_another_try(status: &Status) -> bool {
    is_transient(status) || status.code() == Code::DeadlineExceeded
}

/// Describes a refusal. `what` completes "can not …".
pub(crate) fn explain(what: &str, status: &Status) -> anyhow::Error {
    let details = status.get_error_details();
    let violations: Vec<String> = details
        .bad_request()
        .map(|bad| bad.field_violations.iter().map(violation).collect())
        .unwrap_or_default();
    let message = text::one_line(status.message());
    let mut said = match (status.code(), violations.is_empty()) {
        (_, false) => format!("can not {what}: {}", violations.join("; ")),
        (Code::Unavailable, _) => format!("can not {what}: the server is away ({})", cause(status, &message)),
        (Code::DeadlineExceeded, _) => format!("can not {what}: the server did not answer in time"),
        (_, true) if message.is_empty() => format!("can not {what}: {}", status.code().description()),
        (_, true) => format!("can not {what}: {message}"),
    };
    if let Some(next) = next_step(status.code()) {
        said.push('\n');
        said.push_str(next);
    }
    anyhow!(said)
}

fn violation(violation: &tonic_types::FieldViolation) -> String {
    let (field, rule) = (
        text::one_line(&violation.field),
        text::one_line(&violation.description),
    );
    // Some descriptions begin with their field already.
    match rule.starts_with(&field) || field.is_empty() {
        true => rule,
        false => format!("{field}: {rule}"),
    }
}

const fn next_step(code: Code) -> Option<&'static str> {
    match code {
        Code::Unauthenticated => Some(
            "Set HODEI_TOKEN to a token of this server, or HODEI_DATA_DIR to the folder of the server that runs here",
        ),
        Code::PermissionDenied => Some("Another token may do this; set HODEI_TOKEN"),
        Code::Unavailable => Some("Look whether the server runs, and try again"),
        Code::Unimplemented => {
            Some("The server is older or newer than this command; use the same version of both")
        }
        _ => None,
    }
}

fn cause(status: &Status, message: &str) -> String {
    match status.source() {
        Some(source) => deepest(source),
        None if message.is_empty() => "no reason given".to_owned(),
        None => message.to_owned(),
    }
}

/// What the innermost cause says: the others only say that something below failed.
pub(crate) fn deepest(error: &(dyn Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    text::one_line(&innermost.to_string())
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn violations_name_the_field_and_the_rule() {
        let mut details = ErrorDetails::new();
        details.add_bad_request_violation("memory", "`-5` is not a size");
        details.add_bad_request_violation("label", "label: `x y` is not a key");
        let status = Status::with_error_details(Code::InvalidArgument, "invalid", details);
        assert_eq!(
            explain("queue the job", &status).to_string(),
            "can not queue the job: memory: `-5` is not a size; label: `x y` is not a key"
        );
    }

    #[test]
    fn refusals_say_what_to_do_next() {
        for (status, words) in [
            (
                Status::unauthenticated("who are you"),
                ["who are you", "HODEI_TOKEN"],
            ),
            (Status::unavailable("draining"), ["draining", "try again"]),
            (Status::not_found("no job x"), ["can not get it", "no job x"]),
            (Status::internal("a\u{1b}[2Jb"), ["can not get it", "\\u{1b}"]),
        ] {
            let said = explain("get it", &status).to_string();
            assert!(words.iter().all(|word| said.contains(word)), "{said}");
        }
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        assert!(is_transient(&Status::unavailable("")));
        assert!(is_transient(&Status::from_error(Box::new(
            std::io::Error::other("broken")
        ))));
        let late = Status::deadline_exceeded("");
        assert!(!is_transient(&late) && is_worth_another_try(&late));
        assert!(is_worth_another_try(&Status::unavailable("")));
        assert!(!is_worth_another_try(&Status::not_found("")));
        for status in [
            Status::not_found(""),
            Status::unauthenticated(""),
            Status::internal("bug"),
        ] {
            assert!(!is_transient(&status), "{status}");
        }
    }
}
