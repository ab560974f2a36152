//! Files of jobs in YAML or JSON. Every error names file, line and column.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Deserialize as _;

use super::JobDocument;
use crate::commands::Usage;

/// What a file is called in messages.
pub(super) fn shown(path: &Path) -> String {
    match path == Path::new("-") {
        true => "stdin".to_owned(),
        false => path.display().to_string(),
    }
}

/// The jobs of a file, at least one. A file is JSON if its name says so, or if it begins as JSON and is JSON.
///
/// # Errors
/// What is wrong, with file, line and column.
pub(super) fn parse(text: &str, path: &Path) -> Result<Vec<JobDocument>> {
    let is_json = match path.extension() {
        Some(extension) => extension == "json",
        None => {
            let values = serde_json::Deserializer::from_str(text).into_iter::<serde::de::IgnoredAny>();
            text.trim_start().starts_with('{') && values.into_iter().all(|value| value.is_ok())
        }
    };
    let documents = match is_json {
        true => from_json(text),
        false => from_yaml(text),
    };
    let documents = documents.map_err(|place| Usage(format!("{}{place}", shown(path))))?;
    if documents.is_empty() {
        return Err(Usage(format!("{} holds no job", shown(path))).into());
    }
    Ok(documents)
}

/// The jobs, or `:line:column: what`.
fn from_json(text: &str) -> Result<Vec<JobDocument>, String> {
    let documents = serde_json::Deserializer::from_str(text).into_iter();
    let documents = documents.map(|document| {
        document.map_err(|error: serde_json::Error| {
            let place = format!(" at line {} column {}", error.line(), error.column());
            let said = error.to_string();
            let said = said.strip_suffix(&place).unwrap_or(&said);
            format!(":{}:{}: {said}", error.line(), error.column())
        })
    });
    documents.collect()
}

fn from_yaml(text: &str) -> Result<Vec<JobDocument>, String> {
    let documents = serde_norway::Deserializer::from_str(text);
    let documents = documents.map(|document| {
        // A separator at the end, or two in a row, begin no job.
        Option::<JobDocument>::deserialize(document).map_err(|error| {
            let said = error.to_string();
            match error.location() {
                Some(at) => {
                    let place = format!(" at line {} column {}", at.line(), at.column());
                    let said = said.strip_suffix(&place).unwrap_or(&said);
                    format!(":{}:{}: {said}", at.line(), at.column())
                }
                None => format!(": {said}"),
            }
        })
    });
    documents.filter_map(Result::transpose).collect()
}

/// The jobs as YAML.
///
/// # Errors
/// None that is known.
pub(super) fn yaml(documents: &[JobDocument]) -> Result<String> {
    let texts: Result<Vec<_>, _> = documents.iter().map(serde_norway::to_string).collect();
    Ok(texts.context("can not write YAML")?.join("---\n"))
}

/// The jobs as JSON, one object after the other.
///
/// # Errors
/// None that is known.
pub(super) fn json(documents: &[JobDocument]) -> Result<String> {
    let texts: Result<Vec<_>, _> = documents.iter().map(serde_json::to_string_pretty).collect();
    let texts = texts.context("can not write JSON")?;
    Ok(texts.into_iter().map(|text| text + "\n").collect())
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
