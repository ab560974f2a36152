//! Constraints on labels: `zone = a`, `zone != a`, `zone in (a,b)`, `zone notin (a,b)`, `gpu exists`,
//! `gpu !exists`, `cores > 8`, `cores < 64`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::labels::{Labels, validate_key};
use crate::{Invalid, text};

/// One condition on the labels of a provider or worker.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Constraint {
    key: String,
    operator: Operator,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Operator {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
    Less(i64),
    Greater(i64),
}

impl Constraint {
    /// The label that is looked at.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Whether `labels` satisfy the condition. An absent label satisfies only `!=`, `notin` and `!exists`.
    pub fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        let number = || value.and_then(|v| v.parse::<i64>().ok());
        match &self.operator {
            Operator::In(values) => value.is_some_and(|v| values.iter().any(|w| w == v)),
            Operator::NotIn(values) => value.is_none_or(|v| values.iter().all(|w| w != v)),
            Operator::Exists => value.is_some(),
            Operator::Absent => value.is_none(),
            Operator::Less(bound) => number().is_some_and(|n| n < *bound),
            Operator::Greater(bound) => number().is_some_and(|n| n > *bound),
        }
    }
}

impl FromStr for Constraint {
    type Err = Invalid;

    fn from_str(source: &str) -> Result<Self, Invalid> {
        let invalid = || {
            Invalid::new(
                "constraint",
                source,
                "is not a constraint; write `zone = a`, `zone in (a,b)`, `gpu exists` or `cores > 8`",
            )
        };
        let trimmed = source.trim();
        let end = trimmed
            .find(|c: char| !(c.is_ascii_alphanumeric() || "-_./".contains(c)))
            .ok_or_else(invalid)?;
        let (key, rest) = (&trimmed[..end], trimmed[end..].trim());
        validate_key(key).map_err(|_| invalid())?;
        let value = |v: &str| -> Result<String, Invalid> {
            let v = v.trim();
            let ok = !v.is_empty()
                && v.len() <= 255
                && !v.contains(|c: char| c.is_control() || ",()=<>!".contains(c));
            if ok { Ok(v.to_owned()) } else { Err(invalid()) }
        };
        let set = |v: &str| -> Result<Vec<String>, Invalid> {
            let inner = v
                .trim()
                .strip_prefix('(')
                .and_then(|v| v.strip_suffix(')'))
                .ok_or_else(invalid)?;
            inner.split(',').map(value).collect()
        };
        let number = |v: &str| v.trim().parse::<i64>().map_err(|_| invalid());
        let operator = if let Some(v) = rest.strip_prefix("!=") {
            Operator::NotIn(vec![value(v)?])
        } else if let Some(v) = rest.strip_prefix("==").or_else(|| rest.strip_prefix('=')) {
            Operator::In(vec![value(v)?])
        } else if let Some(v) = rest.strip_prefix('<') {
            Operator::Less(number(v)?)
        } else if let Some(v) = rest.strip_prefix('>') {
            Operator::Greater(number(v)?)
        } else if rest == "exists" {
            Operator::Exists
        } else if rest == "!exists" {
            Operator::Absent
        } else if let Some(v) = rest.strip_prefix("notin") {
            Operator::NotIn(set(v)?)
        } else if let Some(v) = rest.strip_prefix("in") {
            Operator::In(set(v)?)
        } else {
            return Err(invalid());
        };
        Ok(Self {
            key: key.to_owned(),
            operator,
        })
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        match &self.operator {
            Operator::In(values) if values.len() == 1 => write!(f, "{key} = {}", values[0]),
            Operator::NotIn(values) if values.len() == 1 => write!(f, "{key} != {}", values[0]),
            Operator::In(values) => write!(f, "{key} in ({})", values.join(",")),
            Operator::NotIn(values) => write!(f, "{key} notin ({})", values.join(",")),
            Operator::Exists => write!(f, "{key} exists"),
            Operator::Absent => write!(f, "{key} !exists"),
            Operator::Less(bound) => write!(f, "{key} < {bound}"),
            Operator::Greater(bound) => write!(f, "{key} > {bound}"),
        }
    }
}

impl TryFrom<String> for Constraint {
    type Error = Invalid;

    fn try_from(source: String) -> Result<Self, Invalid> {
        if source.len() > text::MAX_LINE_BYTES {
            return Err(Invalid::new("constraint", source, "is longer than 1 KiB"));
        }
        source.parse()
    }
}

impl From<Constraint> for String {
    fn from(constraint: Constraint) -> String {
        constraint.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constraints_match_labels() {
        let labels =
            Labels::new([("zone".into(), "a".into()), ("cores".into(), "16".into())]).expect("valid");
        for (source, want) in [
            ("zone = a", true),
            ("zone=b", false),
            ("zone != b", true),
            ("zone in (a,b)", true),
            ("zone notin (a, b)", false),
            ("gpu exists", false),
            ("gpu !exists", true),
            ("gpu != x", true),
            ("cores > 8", true),
            ("cores < 16", false),
            ("zone > 1", false),
        ] {
            let constraint: Constraint = source.parse().expect(source);
            assert_eq!(constraint.matches(&labels), want, "{source}");
            assert_eq!(
                constraint.to_string().parse::<Constraint>(),
                Ok(constraint),
                "{source}"
            );
        }
        for source in [
            "",
            "zone",
            "zone in a",
            "zone ~ a",
            "zone = ",
            "cores > many",
            "= a",
            "zone in ()",
        ] {
            assert!(source.parse::<Constraint>().is_err(), "{source}");
        }
    }
}
