//! Labels of jobs, workers and providers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Invalid;

/// The most labels one thing may have.
pub const MAX_LABELS: usize = 64;

/// Validated key-value pairs in the order of their keys.
///
/// Keys have 1 to 63 characters of letters, digits, `-`, `_`, `.` and `/`, beginning with a letter or digit.
/// Values are one line of at most 255 bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// Validates pairs.
    ///
    /// # Errors
    /// [`Invalid`] for `label` if a key or value breaks its rule, a key comes twice or there are too many.
    pub fn new(pairs: impl IntoIterator<Item = (String, String)>) -> Result<Self, Invalid> {
        let mut map = BTreeMap::new();
        for (key, value) in pairs {
            validate_key(&key)?;
            if value.len() > 255 || value.chars().any(char::is_control) {
                let text = format!("{key}={value}");
                return Err(Invalid::new(
                    "label",
                    text,
                    "has a value that is not one line of at most 255 bytes",
                ));
            }
            if map.insert(key.clone(), value).is_some() {
                return Err(Invalid::new("label", key, "is given twice"));
            }
        }
        if map.len() > MAX_LABELS {
            return Err(Invalid::new(
                "label",
                map.len().to_string(),
                "labels are too many; 64 are allowed",
            ));
        }
        Ok(Self(map))
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// All pairs in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether every pair of `wanted` is here.
    pub fn contains_all(&self, wanted: &Self) -> bool {
        wanted.iter().all(|(key, value)| self.get(key) == Some(value))
    }
}

/// Splits `KEY=VALUE` as given to `--label`.
///
/// # Errors
/// [`Invalid`] for `label` if there is no `=` or the key breaks its rule.
pub fn parse_pair(text: &str) -> Result<(String, String), Invalid> {
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| Invalid::new("label", text, "has no `=`; write KEY=VALUE"))?;
    Labels::new([(key.to_owned(), value.to_owned())])?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Checks a label key.
///
/// # Errors
/// [`Invalid`] for `label`.
pub fn validate_key(key: &str) -> Result<(), Invalid> {
    let rule = "is not a label key of 1 to 63 letters, digits, `-`, `_`, `.` and `/`, beginning with a letter or digit";
    let ok = (1..=63).contains(&key.len())
        && key.starts_with(|c: char| c.is_ascii_alphanumeric())
        && key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b));
    if ok {
        Ok(())
    } else {
        Err(Invalid::new("label", key, rule))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_validated() {
        assert_eq!(parse_pair("team=a"), Ok(("team".into(), "a".into())));
        for text in ["team", "=a", "no spaces allowed=x", "a=x\ny", "-a=b"] {
            assert!(parse_pair(text).is_err(), "{text}");
        }
        assert!(Labels::new([("a".into(), "1".into()), ("a".into(), "2".into())]).is_err());
    }
}
