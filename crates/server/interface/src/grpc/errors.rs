//! Refusals as gRPC statuses, with details that programs can read (google.rpc ErrorInfo and BadRequest).

use std::collections::HashMap;

use hodei_server_application::refused::Refused;
use hodei_server_application::workers::{RegisterError, RenewError};
use hodei_shared::Invalid;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// The domain of the reason words.
pub const DOMAIN: &str = "hodei";

/// A refusal for the caller. What the server did wrong is logged here, once, and not told in full.
pub fn status(refused: Refused) -> Status {
    let code = match &refused {
        Refused::Invalid(_) => Code::InvalidArgument,
        Refused::NotFound { .. } => Code::NotFound,
        Refused::Unauthenticated => Code::Unauthenticated,
        Refused::Denied(_) => Code::PermissionDenied,
        Refused::RequestIdReused(_) => Code::AlreadyExists,
        Refused::WrongState(_) => Code::FailedPrecondition,
        Refused::StoreFull => Code::ResourceExhausted,
        Refused::Unavailable(_) => Code::Unavailable,
        Refused::Internal(_) => Code::Internal,
    };
    let mut details = reason(refused.reason());
    if let Refused::Invalid(broken) = &refused {
        for invalid in broken {
            details.add_bad_request_violation(invalid.field, format!("`{}` {}", invalid.value, invalid.rule));
        }
    }
    if let Refused::Internal(error) = &refused {
        tracing::error!(%error, "a call failed");
        return Status::with_error_details(code, "the server failed; its log says more", details);
    }
    Status::with_error_details(code, refused.to_string(), details)
}

/// A status with a reason word that is no use case's refusal.
pub(crate) fn plain(code: Code, word: &str, message: &str) -> Status {
    Status::with_error_details(code, message, reason(word))
}

/// A message that a well-behaved client would not send.
pub(crate) fn invalid(invalid: Invalid) -> Status {
    status(invalid.into())
}

/// A registration that did not succeed. The caller hears no more than it must.
pub(crate) fn register_status(error: &RegisterError) -> Status {
    match error {
        RegisterError::TryAgain => plain(
            Code::Unavailable,
            "try_again",
            "the machine is not confirmed yet; try again",
        ),
        RegisterError::Refused => plain(Code::PermissionDenied, "refused", "the registration is refused"),
        RegisterError::Unavailable => plain(
            Code::Unavailable,
            "unavailable",
            "the server can not register workers now",
        ),
    }
}

/// A renewal that did not succeed.
pub(crate) fn renew_status(error: &RenewError) -> Status {
    match error {
        RenewError::Refused => plain(Code::PermissionDenied, "refused", "the renewal is refused"),
        RenewError::Unavailable => plain(
            Code::Unavailable,
            "unavailable",
            "the server can not renew certificates now",
        ),
    }
}

fn reason(word: &str) -> ErrorDetails {
    ErrorDetails::with_error_info(word, DOMAIN, HashMap::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_carries_its_reason_and_every_broken_field() {
        let refused = Refused::Invalid(vec![
            Invalid::new("memory", "0", "bytes are out of range"),
            Invalid::new("env", "HODEI_X", "is refused"),
        ]);
        let status = status(refused);
        let details = status.get_error_details();
        assert_eq!(status.code(), Code::InvalidArgument);
        let info = details.error_info().expect("a reason");
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("invalid", "hodei"));
        let violations = &details.bad_request().expect("fields").field_violations;
        let fields: Vec<_> = violations
            .iter()
            .map(|v| (v.field.as_str(), v.description.as_str()))
            .collect();
        assert_eq!(
            fields,
            [
                ("memory", "`0` bytes are out of range"),
                ("env", "`HODEI_X` is refused")
            ]
        );
    }

    #[test]
    fn what_went_wrong_inside_stays_inside() {
        let status = status(Refused::Internal("table token is damaged at page 7".into()));
        assert_eq!(status.code(), Code::Internal);
        assert!(!status.message().contains("page 7"));
    }

    #[test]
    fn every_refusal_has_a_code_of_its_own() {
        for (refused, code) in [
            (
                Refused::NotFound {
                    kind: "job",
                    id: "x".into(),
                },
                Code::NotFound,
            ),
            (Refused::Unauthenticated, Code::Unauthenticated),
            (Refused::Denied("no".into()), Code::PermissionDenied),
            (Refused::RequestIdReused("r".into()), Code::AlreadyExists),
            (Refused::WrongState("w".into()), Code::FailedPrecondition),
            (Refused::StoreFull, Code::ResourceExhausted),
            (Refused::Unavailable("u".into()), Code::Unavailable),
        ] {
            let word = refused.reason();
            let status = status(refused);
            assert_eq!(status.code(), code);
            assert_eq!(
                status.get_details_error_info().map(|info| info.reason),
                Some(word.to_owned())
            );
        }
    }
}
