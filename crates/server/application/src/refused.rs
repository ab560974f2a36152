//! Why a use case did not do what it was asked: one transport-neutral type for every door.

use hodei_shared::Invalid;
use thiserror::Error;

use crate::ports::StoreError;

/// A refusal, for the caller.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refused {
    /// Values that break rules; all of them.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Invalid(Vec<Invalid>),
    /// There is no such thing, or not for this caller.
    #[error("there is no {kind} {id}")]
    NotFound {
        /// `job`, `worker`, `provider`, `attempt`.
        kind: &'static str,
        /// As it was asked for.
        id: String,
    },
    /// No valid token or certificate. Every bad one hears the same.
    #[error("the token is not valid")]
    Unauthenticated,
    /// A valid identity that may not do this.
    #[error("not allowed: {0}")]
    Denied(String),
    /// The request id was used for something else.
    #[error("request id `{0}` was used before for another spec")]
    RequestIdReused(String),
    /// The thing is in a state in which this can not be done.
    #[error("{0}")]
    WrongState(String),
    /// Try again later: nothing was stored.
    #[error("the store is full; nothing was stored. Make room in the data folder and try again")]
    StoreFull,
    /// Try again later: not known whether it was done.
    #[error("the server can not do this now: {0}")]
    Unavailable(String),
    /// A bug.
    #[error("the server failed: {0}")]
    Internal(String),
}

impl Refused {
    /// A stable word for programs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid",
            Self::NotFound { .. } => "not_found",
            Self::Unauthenticated => "unauthenticated",
            Self::Denied(_) => "denied",
            Self::RequestIdReused(_) => "request_id_reused",
            Self::WrongState(_) => "wrong_state",
            Self::StoreFull => "store_full",
            Self::Unavailable(_) => "unavailable",
            Self::Internal(_) => "internal",
        }
    }

    /// Whether the same call may succeed later.
    pub fn retryable(&self) -> bool {
        match self {
            Self::StoreFull | Self::Unavailable(_) => true,
            Self::Invalid(_)
            | Self::NotFound { .. }
            | Self::Unauthenticated
            | Self::Denied(_)
            | Self::RequestIdReused(_)
            | Self::WrongState(_)
            | Self::Internal(_) => false,
        }
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full => Self::StoreFull,
            StoreError::Unavailable(message) => Self::Unavailable(message),
            StoreError::Internal(message) => Self::Internal(message),
        }
    }
}

impl From<Invalid> for Refused {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(vec![invalid])
    }
}
