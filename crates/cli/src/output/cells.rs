//! What tables are made of: columns, ages, sizes and the sign for nothing.

use std::collections::BTreeMap;

use comfy_table::{Table, presets};
use hodei_jobs::view::Job;
use hodei_shared::{resources, text};
use jiff::Timestamp;

/// The sign for nothing.
pub(super) const NONE: &str = "-";
const NARROW: usize = 40;

/// A header and rows; empty without rows.
pub(super) fn columns(header: &[&str], rows: Vec<Vec<String>>) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(header.iter().copied());
    table.add_rows(rows.into_iter().map(one_lined));
    render(table)
}

/// Titles and values below each other.
pub(super) fn details(lines: Vec<(&str, String)>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.add_rows(
        lines
            .into_iter()
            .map(|(title, value)| one_lined(vec![format!("{title}:"), value])),
    );
    render(table)
}

pub(super) fn one_lined(row: Vec<String>) -> Vec<String> {
    row.iter().map(|cell| text::one_line(cell)).collect()
}

pub(super) fn render(mut table: Table) -> String {
    table.column_iter_mut().for_each(|column| {
        column.set_padding((0, 2));
    });
    table.trim_fmt()
}

pub(super) fn or_none(value: Option<&str>) -> String {
    value.filter(|value| !value.is_empty()).unwrap_or(NONE).to_owned()
}

pub(super) fn narrow(value: Option<&str>, wide: bool) -> String {
    match wide {
        true => or_none(value),
        false => text::shorten(&or_none(value), NARROW),
    }
}

pub(super) fn yes(value: bool) -> String {
    if value { "yes" } else { "no" }.to_owned()
}

pub(super) fn of<T: ToString>(used: Option<&T>, all: Option<&T>) -> String {
    let text = |value: Option<&T>| value.map_or(NONE.to_owned(), ToString::to_string);
    format!("{}/{}", text(used), text(all))
}

pub(super) fn of_bytes(used: u64, all: Option<u64>) -> String {
    let all = all.map_or(NONE.to_owned(), resources::format_bytes);
    format!("{}/{all}", resources::format_bytes(used))
}

pub(super) fn labels(labels: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    or_none(Some(&pairs.join(",")))
}

pub(super) fn command(job: &Job) -> String {
    match (&job.command, &job.script) {
        (Some(command), _) => command.join(" "),
        (None, Some(script)) => script.lines().next().unwrap_or_default().to_owned(),
        (None, None) => String::new(),
    }
}

pub(super) fn ending(exit_code: Option<i32>, signal: Option<i32>) -> String {
    match (exit_code, signal) {
        (_, Some(signal)) => format!("signal {signal}"),
        (Some(code), None) => code.to_string(),
        (None, None) => NONE.to_owned(),
    }
}

pub(super) fn moment(at: Option<&str>, now: Timestamp) -> String {
    match at {
        Some(at) => format!("{at} ({} ago)", age(Some(at), now)),
        None => NONE.to_owned(),
    }
}

/// How long ago, in its largest unit: `5s`, `3m`, `2h`, `4d`.
pub(super) fn age(at: Option<&str>, now: Timestamp) -> String {
    let Some(at) = at.and_then(|at| at.parse::<Timestamp>().ok()) else {
        return NONE.to_owned();
    };
    match now.as_second().saturating_sub(at.as_second()).max(0) {
        seconds @ 0..60 => format!("{seconds}s"),
        seconds @ 60..3_600 => format!("{}m", seconds / 60),
        seconds @ 3_600..86_400 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    }
}
