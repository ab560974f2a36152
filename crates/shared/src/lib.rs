//! Pure types that the server, the worker and the command line share: identifiers, resources, labels,
//! constraints, durations, secrets and offsets.
//!
//! Every type is validated where it is built, so a value that exists is valid. This crate deliberately has
//! no I/O, no clock, no TLS and no wire format.
#![forbid(unsafe_code)]

pub mod constraint;
pub mod duration;
pub mod ids;
pub mod labels;
pub mod offsets;
pub mod ports;
pub mod resources;
pub mod secret;
pub mod text;

use thiserror::Error;

/// A value that breaks a rule: which field, what it was, and the rule it broke.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field}: `{value}` {rule}")]
pub struct Invalid {
    /// The field as a user knows it, such as `memory` or `label`.
    pub field: &'static str,
    /// The offending value, shortened to 80 characters, control characters escaped.
    pub value: String,
    /// The rule, phrased to follow the value: "is not a size; write 512MiB or 2GiB".
    pub rule: String,
}

impl Invalid {
    /// Describes `value` of `field` as breaking `rule`.
    pub fn new(field: &'static str, value: impl AsRef<str>, rule: impl Into<String>) -> Self {
        Self {
            field,
            value: text::shorten(value.as_ref(), 80),
            rule: rule.into(),
        }
    }
}
