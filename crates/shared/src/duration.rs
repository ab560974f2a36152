//! Durations as people write them: `500ms`, `10m`, `1h30m`, `2d`.

use std::time::Duration;

use crate::Invalid;

const UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];
const MAX_MS: u64 = 10 * 365 * 86_400_000;

/// Parses a duration of one or several numbers with a unit (`ms`, `s`, `m`, `h`, `d`), at most ten years.
///
/// # Errors
/// [`Invalid`] for `field` if the text has no unit, an unknown one, or is too large.
pub fn parse(field: &'static str, text: &str) -> Result<Duration, Invalid> {
    let invalid = || Invalid::new(field, text, "is not a duration; write 500ms, 30s, 10m, 2h or 1d");
    let mut rest = text;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(invalid)?;
        let number: u64 = rest[..digits].parse().map_err(|_| invalid())?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = UNITS
            .iter()
            .find(|(name, _)| *name == &rest[..letters])
            .ok_or_else(invalid)?;
        total = number
            .checked_mul(unit.1)
            .and_then(|ms| total.checked_add(ms))
            .filter(|ms| *ms <= MAX_MS)
            .ok_or_else(|| Invalid::new(field, text, "is longer than ten years"))?;
        rest = &rest[letters..];
    }
    if text.is_empty() {
        return Err(invalid());
    }
    Ok(Duration::from_millis(total))
}

/// Writes a duration with its two largest units: `1h30m`, `2m5s`, `1.5s`, `20ms`.
pub fn format(duration: Duration) -> String {
    let ms = duration.as_millis();
    match ms {
        0..1_000 => format!("{ms}ms"),
        1_000..60_000 if ms.is_multiple_of(1_000) => format!("{}s", ms / 1_000),
        1_000..60_000 => format!("{:.1}s", duration.as_secs_f64()),
        60_000..3_600_000 => two(ms / 1_000, 60, "m", "s"),
        3_600_000..86_400_000 => two(ms / 60_000, 60, "h", "m"),
        _ => two(ms / 3_600_000, 24, "d", "h"),
    }
}

fn two(small: u128, per_large: u128, large_unit: &str, small_unit: &str) -> String {
    match small % per_large {
        0 => format!("{}{large_unit}", small / per_large),
        rest => format!("{}{large_unit}{rest}{small_unit}", small / per_large),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written() {
        for (text, ms) in [
            ("500ms", 500),
            ("1s", 1_000),
            ("1h30m", 5_400_000),
            ("2d", 172_800_000),
            ("0s", 0),
        ] {
            assert_eq!(parse("timeout", text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in [
            "",
            "soon",
            "5",
            "-5s",
            "5 s",
            "1y",
            "99999999999999999999s",
            "4000d",
        ] {
            assert!(parse("timeout", text).is_err(), "{text}");
        }
        for (ms, text) in [
            (20, "20ms"),
            (1_500, "1.5s"),
            (125_000, "2m5s"),
            (5_400_000, "1h30m"),
            (172_800_000, "2d"),
        ] {
            assert_eq!(format(Duration::from_millis(ms)), text);
        }
    }
}
