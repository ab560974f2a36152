//! `hodei.toml` as it is written. Every error names file, line and column.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use hodei_shared::duration;
use hodei_shared::ids::ProviderId;
use hodei_shared::resources::{parse_bytes, parse_cpus};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

const SHORTEST_AGE: Duration = Duration::from_secs(3_600);

/// The file. Only keys that have a meaning in this release are known.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConfigFile {
    pub(super) data_dir: Option<PathBuf>,
    pub(super) listen: Option<String>,
    pub(super) worker_listen: Option<String>,
    #[serde(default)]
    pub(super) worker_advertise: Vec<String>,
    #[serde(default)]
    pub(super) public_names: Vec<String>,
    pub(super) cluster_key_file: Option<PathBuf>,
    pub(super) admin_token_file: Option<PathBuf>,
    pub(super) tls: Option<Tls>,
    #[serde(default)]
    pub(super) retention: Retention,
    #[serde(default, rename = "provider")]
    pub(super) providers: Vec<Provider>,
}

/// `[tls]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tls {
    pub(super) cert_file: PathBuf,
    pub(super) key_file: PathBuf,
}

/// `[retention]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Retention {
    #[serde(default, deserialize_with = "age")]
    pub(super) jobs: Option<Duration>,
    #[serde(default, deserialize_with = "age")]
    pub(super) output: Option<Duration>,
}

/// `[[provider]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Provider {
    pub(super) id: ProviderId,
    pub(super) kind: Kind,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) capacity: Capacity,
}

/// The kinds that this release has.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Process,
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "process" => Ok(Self::Process),
            later @ ("docker" | "kubernetes" | "firecracker") => Err(D::Error::custom(format!(
                "kind `{later}` is not in this release; use `process`"
            ))),
            other => Err(D::Error::custom(format!(
                "`{other}` is no kind of provider; use `process`"
            ))),
        }
    }
}

/// `capacity = { … }`: what is left out is the machine's.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Capacity {
    #[serde(default, deserialize_with = "cpus")]
    pub(super) cpus: Option<u64>,
    #[serde(default, deserialize_with = "memory")]
    pub(super) memory: Option<u64>,
    pub(super) workers: Option<u32>,
}

/// An age at which something is removed. A worker that was cut off for long may still speak of a job, and must not
/// be taken for one that speaks of a job that never was: so it is not short.
fn age<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let age = duration::parse("retention", &text).map_err(D::Error::custom)?;
    if age < SHORTEST_AGE {
        return Err(D::Error::custom(format!(
            "retention: `{text}` is shorter than 1h"
        )));
    }
    Ok(Some(age))
}

/// Thousandths of a processor, from `8`, `0.5` or `"8"`.
fn cpus<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Cpus {
        Whole(u64),
        Fraction(f64),
        Text(String),
    }
    let text = match Cpus::deserialize(deserializer)? {
        Cpus::Whole(number) => number.to_string(),
        Cpus::Fraction(number) => number.to_string(),
        Cpus::Text(text) => text,
    };
    parse_cpus(&text).map(Some).map_err(D::Error::custom)
}

/// Bytes, from `"16GiB"` or a number.
fn memory<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Memory {
        Bytes(u64),
        Text(String),
    }
    let text = match Memory::deserialize(deserializer)? {
        Memory::Bytes(number) => number.to_string(),
        Memory::Text(text) => text,
    };
    parse_bytes("memory", &text).map(Some).map_err(D::Error::custom)
}

impl ConfigFile {
    /// Reads a file that must be there.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let shown = path.display();
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("the configuration {shown} can not be read"))?;
        Self::parse(&text, path)
    }

    /// Reads a file; without one there is nothing in it.
    pub(super) fn read_if_there(path: &Path) -> Result<Self> {
        match path.try_exists() {
            Ok(true) => Self::read(path),
            Ok(false) => Ok(Self::default()),
            Err(error) => {
                Err(error).with_context(|| format!("the configuration {} can not be read", path.display()))
            }
        }
    }

    fn parse(text: &str, path: &Path) -> Result<Self> {
        toml::from_str(text).map_err(|error| {
            let before = error
                .span()
                .map_or("", |span| text.get(..span.start).unwrap_or(""));
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
            anyhow!("{}:{line}:{column}: {}", path.display(), error.message())
        })
    }
}
