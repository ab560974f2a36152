//! Readers of single values on the command line. Each answers the value or the rule that it breaks; clap puts
//! the flag's name in front. The server checks everything again.

use std::str::FromStr;

use hodei_shared::constraint::Constraint;
use hodei_shared::{Invalid, labels, resources, text};

use crate::args::jobs::AttemptChoice;

const LOST_AFTER_MS: std::ops::RangeInclusive<u64> = 60_000..=86_400_000;

fn rule(invalid: Invalid) -> String {
    format!("`{}` {}", invalid.value, invalid.rule)
}

fn broken(value: &str, rule: &str) -> String {
    format!("`{}` {rule}", text::shorten(value, 80))
}

/// An id, or a name that is one.
pub(crate) fn id<T: FromStr<Err = Invalid>>(text: &str) -> Result<T, String> {
    text.parse().map_err(rule)
}

/// Thousandths of a processor.
pub(crate) fn cpus(text: &str) -> Result<u64, String> {
    resources::parse_cpus(text).map_err(rule)
}

/// Bytes.
pub(crate) fn memory(text: &str) -> Result<u64, String> {
    resources::parse_bytes("memory", text).map_err(rule)
}

/// Milliseconds, more than none.
pub(crate) fn timeout(text: &str) -> Result<u64, String> {
    match milliseconds("timeout", text)? {
        0 => Err(broken(text, "is no time at all; leave the flag out for no limit")),
        ms => Ok(ms),
    }
}

/// Milliseconds from one minute to one day.
pub(crate) fn lost_after(text: &str) -> Result<u64, String> {
    let ms = milliseconds("lost-after", text)?;
    if LOST_AFTER_MS.contains(&ms) {
        Ok(ms)
    } else {
        Err(broken(text, "is not between 1m and 24h"))
    }
}

/// Milliseconds, possibly none.
pub(crate) fn duration(text: &str) -> Result<u64, String> {
    milliseconds("duration", text)
}

/// Milliseconds from a number of seconds.
pub(crate) fn seconds(text: &str) -> Result<u64, String> {
    /// Ten years.
    const LONGEST: f64 = 3_650.0 * 86_400.0;
    let seconds = text
        .parse()
        .ok()
        .filter(|seconds| (0.0..=LONGEST).contains(seconds));
    let seconds: f64 = seconds.ok_or_else(|| {
        broken(
            text,
            "is not a number of seconds; write 90, or a duration such as 10m",
        )
    })?;
    // In range, so it fits.
    Ok((seconds * 1_000.0).round() as u64)
}

/// The number of an attempt, or `all`.
pub(crate) fn attempt(text: &str) -> Result<AttemptChoice, String> {
    if text == "all" {
        return Ok(AttemptChoice::All);
    }
    let number = text.parse().ok().filter(|number| *number > 0);
    number
        .map(AttemptChoice::Number)
        .ok_or_else(|| broken(text, "is not an attempt; write 1 or more, or all"))
}

/// A moment, or how long ago it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Since {
    /// Milliseconds before now.
    Ago(u64),
    /// Milliseconds since the epoch.
    At(i64),
}

/// A duration or an RFC 3339 time.
pub(crate) fn since(text: &str) -> Result<Since, String> {
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Ok(Since::At(at.as_millisecond()));
    }
    let ago = duration(text).map(Since::Ago);
    ago.map_err(|_| {
        broken(
            text,
            "is neither a duration such as 10m nor a time such as 2026-01-31T08:00:00Z",
        )
    })
}

fn milliseconds(field: &'static str, text: &str) -> Result<u64, String> {
    let duration = hodei_shared::duration::parse(field, text).map_err(rule)?;
    u64::try_from(duration.as_millis()).map_err(|_| broken(text, "is too long"))
}

/// How many jobs a bench keeps going at once.
pub(crate) fn slots(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|n| (1..=10_000).contains(n));
    number.ok_or_else(|| broken(text, "is not a number of slots; write 1 to 10000"))
}

/// How many jobs a bench queues each second.
pub(crate) fn rate(text: &str) -> Result<f64, String> {
    let number = text
        .parse()
        .ok()
        .filter(|n: &f64| n.is_finite() && (0.01..=1e6).contains(n));
    number.ok_or_else(|| broken(text, "is not a rate; write jobs per second, such as 50"))
}

/// A count of retries.
pub(crate) fn retries(text: &str) -> Result<u32, String> {
    text.parse()
        .map_err(|_| broken(text, "is not a number of retries; write 0 or more"))
}

/// A priority, which may be negative.
pub(crate) fn priority(text: &str) -> Result<i32, String> {
    text.parse()
        .map_err(|_| broken(text, "is not a priority; write a whole number"))
}

/// `KEY=VALUE` that is a label.
pub(crate) fn label(text: &str) -> Result<(String, String), String> {
    labels::parse_pair(text).map_err(rule)
}

/// A constraint in its canonical text form.
pub(crate) fn constraint(text: &str) -> Result<String, String> {
    text.parse::<Constraint>().map(|c| c.to_string()).map_err(rule)
}

/// A name: one line that says something.
pub(crate) fn name(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        return Err(broken(text, "is no name; leave it out for none"));
    }
    if text.len() > text::MAX_LINE_BYTES || text.chars().any(char::is_control) {
        return Err(broken(text, "is not one line of at most 1024 bytes"));
    }
    Ok(text.to_owned())
}

/// An image: one word.
pub(crate) fn image(text: &str) -> Result<String, String> {
    let wrong = |c: char| c.is_control() || c.is_whitespace();
    if text.is_empty() || text.len() > text::MAX_LINE_BYTES || text.chars().any(wrong) {
        return Err(broken(text, "is not an image; write one such as alpine:3.22"));
    }
    Ok(text.to_owned())
}

/// A folder of the job, which may be relative.
pub(crate) fn workdir(text: &str) -> Result<String, String> {
    if text.trim().is_empty() || text.contains('\0') {
        return Err(broken(text, "is not a folder; leave it out for a private one"));
    }
    Ok(text.to_owned())
}

/// A key that is not empty.
pub(crate) fn request_id(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > 255 || text.chars().any(char::is_control) {
        return Err(broken(text, "is not a key of 1 to 255 characters"));
    }
    Ok(text.to_owned())
}

/// `NAME=VALUE` of the environment.
pub(crate) fn env(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| broken(text, "has no `=`; write NAME=VALUE"))?;
    if name.is_empty() || name.contains('\0') || value.contains('\0') {
        return Err(broken(text, "has no name, or a zero byte; write NAME=VALUE"));
    }
    if name.starts_with("HODEI_") {
        return Err(broken(
            name,
            "is refused: names that begin with HODEI_ are Hodei's own",
        ));
    }
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read() {
        assert_eq!(timeout("500ms"), Ok(500));
        assert_eq!(lost_after("5m"), Ok(300_000));
        assert_eq!(priority("-5"), Ok(-5));
        assert_eq!(env("A=b=c"), Ok(("A".into(), "b=c".into())));
        assert_eq!(env("A="), Ok(("A".into(), String::new())));
        assert_eq!(constraint("zone in (a, b)"), Ok("zone in (a,b)".into()));
    }

    #[test]
    fn errors_name_the_value_and_the_rule() {
        for (result, value, rule) in [
            (timeout("0s").map(drop), "`0s`", "no limit"),
            (timeout("soon").map(drop), "`soon`", "write 500ms"),
            (lost_after("1s").map(drop), "`1s`", "between 1m and 24h"),
            (retries("-1").map(drop), "`-1`", "0 or more"),
            (env("HODEI_X=1").map(drop), "`HODEI_X`", "refused"),
            (env("=1").map(drop), "`=1`", "NAME=VALUE"),
            (env("A").map(drop), "`A`", "NAME=VALUE"),
            (name("a\nb").map(drop), "`a\\nb`", "one line"),
            (name(" ").map(drop), "` `", "leave it out"),
            (image("").map(drop), "``", "alpine"),
            (image("a b").map(drop), "`a b`", "alpine"),
            (workdir("").map(drop), "``", "private"),
            (label("x y=1").map(drop), "`x y`", "label key"),
            (request_id("").map(drop), "``", "1 to 255"),
        ] {
            let error = result.expect_err(value);
            assert!(error.contains(value) && error.contains(rule), "{error}");
        }
    }
}
