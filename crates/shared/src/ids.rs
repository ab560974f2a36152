//! Identifiers. Each is a newtype, so that one can not be passed for another.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32_DNSSEC;
use serde::{Deserialize, Serialize};

use crate::Invalid;

/// Length of a [`JobId`] or [`WorkerId`] as text.
pub const ID_CHARS: usize = 26;

macro_rules! time_ordered_id {
    ($(#[$doc:meta])* $name:ident, $field:literal) => {
        $(#[$doc])*
        ///
        /// Text form: lower-case base32hex (`0-9a-v`), 26 characters, of a UUIDv7: ordered in time and a valid
        /// DNS label.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// Wraps the 16 bytes of a UUIDv7.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// The 16 bytes of the UUIDv7.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&BASE32_DNSSEC.encode(&self.0))
            }
        }

        impl FromStr for $name {
            type Err = Invalid;

            fn from_str(text: &str) -> Result<Self, Invalid> {
                let rule = "is not an id; ids have 26 characters of 0-9 and a-v";
                let lower = text.len() == ID_CHARS && !text.bytes().any(|b| b.is_ascii_uppercase());
                let bytes = lower
                    .then(|| BASE32_DNSSEC.decode(text.as_bytes()).ok())
                    .flatten()
                    .and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
                bytes.map(Self).ok_or_else(|| Invalid::new($field, text, rule))
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

time_ordered_id!(
    /// A job.
    JobId,
    "job"
);
time_ordered_id!(
    /// A worker: one machine, container, pod or process that a provider started for Hodei.
    WorkerId,
    "worker"
);

time_ordered_id!(
    /// An object that holds output; never used for another one.
    ObjectId,
    "object"
);

impl ObjectId {
    /// When the id was made, in milliseconds since the Unix epoch (RFC 9562).
    pub fn made_at_ms(&self) -> i64 {
        let mut bytes = [0; 8];
        bytes[2..].copy_from_slice(&self.0[..6]);
        i64::from_be_bytes(bytes)
    }
}

macro_rules! dns_label {
    ($(#[$doc:meta])* $name:ident, $field:literal) => {
        $(#[$doc])*
        ///
        /// A DNS label: 1 to 63 characters of `a-z`, `0-9` and `-`, starting and ending with a letter or digit.
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Validates `text`.
            ///
            /// # Errors
            /// [`Invalid`] if it is not a DNS label.
            pub fn new(text: impl Into<String>) -> Result<Self, Invalid> {
                let text = text.into();
                let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
                let ok = (1..=63).contains(&text.len())
                    && text.bytes().all(inner)
                    && !text.starts_with('-')
                    && !text.ends_with('-');
                if ok {
                    Ok(Self(text))
                } else {
                    Err(Invalid::new($field, text, "is not a name of 1 to 63 characters of a-z, 0-9 and `-`"))
                }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = Invalid;

            fn from_str(text: &str) -> Result<Self, Invalid> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = Invalid;

            fn try_from(text: String) -> Result<Self, Invalid> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }
    };
}

dns_label!(
    /// A configured provider.
    ProviderId,
    "provider"
);
dns_label!(
    /// A tenant: the trust boundary between jobs.
    Namespace,
    "namespace"
);

impl Namespace {
    /// The namespace that is used when none is named.
    pub fn default_namespace() -> Self {
        Self("default".to_owned())
    }
}

/// The fencing token of one claim of a job. It only grows; whoever holds an older one is told Stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Lease(pub u64);

impl Lease {
    /// The lease of the next claim.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The position of a worker in a job that runs on several; 0 today.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Rank(pub u32);

/// What output, results and input reads carry: one claim of one job, on one of its workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttemptKey {
    /// The job.
    pub job: JobId,
    /// The claim.
    pub lease: Lease,
    /// The worker's position in the job.
    pub rank: Rank,
}

impl fmt::Display for AttemptKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.job, self.lease, self.rank.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip_and_keep_their_order() {
        let early = JobId::from_bytes([1; 16]);
        let late = JobId::from_bytes([2; 16]);
        assert_eq!(early.to_string().len(), ID_CHARS);
        assert_eq!(early.to_string().parse::<JobId>(), Ok(early));
        assert!(early < late && early.to_string() < late.to_string());
    }

    #[test]
    fn hostile_ids_are_refused() {
        for text in [
            "",
            "../../etc/passwd",
            "0000000000000000000000000A",
            &"0".repeat(27),
            "00000000000000000000000001",
        ] {
            assert!(text.parse::<JobId>().is_err(), "{text}");
        }
    }

    #[test]
    fn names_are_dns_labels() {
        assert!(ProviderId::new("local-1").is_ok());
        for text in ["", "-a", "a-", "A", "a_b", "a/b", &"a".repeat(64)] {
            assert!(ProviderId::new(text).is_err(), "{text}");
        }
    }
}
