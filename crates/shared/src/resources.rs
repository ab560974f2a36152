//! What a job needs and a machine has: processors and memory.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Invalid;

/// An amount of processors and memory; a need, a capacity or what is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Resources {
    /// Processors in thousandths.
    pub cpu_millis: u64,
    /// Memory in bytes.
    pub memory_bytes: u64,
}

impl Resources {
    /// What a job needs that names nothing: one processor and 512 MiB.
    pub const JOB_DEFAULT: Self = Self {
        cpu_millis: 1_000,
        memory_bytes: 512 << 20,
    };

    /// Whether a need of `self` fits into `room`.
    pub const fn fits(&self, room: &Self) -> bool {
        self.cpu_millis <= room.cpu_millis && self.memory_bytes <= room.memory_bytes
    }

    /// The sum, saturating.
    pub const fn plus(&self, other: &Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis.saturating_add(other.cpu_millis),
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
        }
    }

    /// The difference, never below zero.
    pub const fn minus(&self, other: &Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis.saturating_sub(other.cpu_millis),
            memory_bytes: self.memory_bytes.saturating_sub(other.memory_bytes),
        }
    }
}

impl fmt::Display for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} cpus, {}",
            format_cpus(self.cpu_millis),
            format_bytes(self.memory_bytes)
        )
    }
}

/// Parses processors: `2`, `0.5`, at most three decimals; the result is in thousandths, 1 to 1,000,000.
///
/// # Errors
/// [`Invalid`] for the field `cpus`.
pub fn parse_cpus(text: &str) -> Result<u64, Invalid> {
    let invalid = || {
        Invalid::new(
            "cpus",
            text,
            "is not a number of processors; write 2 or 0.5, from 0.001 to 1000",
        )
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 3 {
        return Err(invalid());
    }
    let millis: u64 = format!("{fraction:0<3}").parse().map_err(|_| invalid())?;
    let whole: u64 = whole.parse().map_err(|_| invalid())?;
    let total = whole.checked_mul(1_000).and_then(|w| w.checked_add(millis));
    total.filter(|t| (1..=1_000_000).contains(t)).ok_or_else(invalid)
}

/// Writes processors in thousandths as people do: `2`, `0.5`.
pub fn format_cpus(millis: u64) -> String {
    match millis % 1_000 {
        0 => (millis / 1_000).to_string(),
        rest => format!("{}.{rest:03}", millis / 1_000)
            .trim_end_matches('0')
            .to_owned(),
    }
}

const SIZE_UNITS: [(&str, u64); 11] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("KB", 1_000),
    ("B", 1),
    ("", 1),
];

/// Parses a size for `field`: `512MiB`, `2GiB`, `1.5GB`, `1048576`; the result is in bytes, 1 to 2^50.
///
/// # Errors
/// [`Invalid`] for `field`.
pub fn parse_bytes(field: &'static str, text: &str) -> Result<u64, Invalid> {
    let invalid = || Invalid::new(field, text, "is not a size; write 512MiB, 2GiB or 1.5GB");
    let split = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let (_, factor) = SIZE_UNITS
        .iter()
        .find(|(name, _)| *name == unit)
        .ok_or_else(invalid)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.len() > 6 || (number.contains('.') && fraction.is_empty()) {
        return Err(invalid());
    }
    let whole: u64 = whole.parse().map_err(|_| invalid())?;
    let millionths: u64 = format!("{fraction:0<6}").parse().map_err(|_| invalid())?;
    let bytes =
        u128::from(whole) * u128::from(*factor) + u128::from(millionths) * u128::from(*factor) / 1_000_000;
    u64::try_from(bytes)
        .ok()
        .filter(|b| (1..=1 << 50).contains(b))
        .ok_or_else(invalid)
}

/// Writes a size with the largest binary unit that keeps it readable: `512MiB`, `1.5GiB`.
pub fn format_bytes(bytes: u64) -> String {
    for (name, factor) in &SIZE_UNITS[..4] {
        if bytes >= *factor {
            return if bytes.is_multiple_of(*factor) {
                format!("{}{name}", bytes / factor)
            } else {
                format!("{:.1}{name}", bytes as f64 / *factor as f64)
            };
        }
    }
    format!("{bytes}B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_read_and_written() {
        for (text, millis) in [("1", 1_000), ("0.5", 500), ("2.25", 2_250), ("1000", 1_000_000)] {
            assert_eq!(parse_cpus(text), Ok(millis));
            assert_eq!(format_cpus(millis), text);
        }
        for text in [
            "",
            "many",
            "-1",
            "0",
            "0.0001",
            "1001",
            "1.",
            ".5",
            "99999999999999999999",
        ] {
            assert!(parse_cpus(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_read_and_written() {
        for (text, bytes) in [
            ("512MiB", 512 << 20),
            ("1.5GiB", 3 << 29),
            ("1kB", 1_000),
            ("7", 7),
        ] {
            assert_eq!(parse_bytes("memory", text), Ok(bytes), "{text}");
        }
        for text in ["", "-5", "5 MiB", "0", "5mib", "MiB", "1.MiB", "9999999TiB"] {
            assert!(parse_bytes("memory", text).is_err(), "{text}");
        }
        assert_eq!(format_bytes(512 << 20), "512MiB");
        assert_eq!(format_bytes(3 << 29), "1.5GiB");
        assert_eq!(format_bytes(12), "12B");
    }
}
