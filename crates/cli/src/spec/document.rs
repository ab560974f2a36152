//! One job of a file, key by key. Unknown keys, keys that come twice and wrong types are errors; what is left out
//! is `None` or empty and means the default.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hodei_jobs::v1;
use hodei_shared::ids::ProviderId;
use hodei_shared::resources;
use serde::de::{Error, MapAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::values;

/// A job as a file describes it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a job with keys")]
pub(crate) struct JobDocument {
    #[serde(default, deserialize_with = "name", skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    #[serde(default, deserialize_with = "texts", skip_serializing_if = "Vec::is_empty")]
    pub(crate) command: Vec<String>,
    #[serde(default, deserialize_with = "plain", skip_serializing_if = "String::is_empty")]
    pub(crate) script: String,
    #[serde(default, deserialize_with = "texts", skip_serializing_if = "Vec::is_empty")]
    pub(crate) interpreter: Vec<String>,
    #[serde(default, deserialize_with = "image", skip_serializing_if = "Option::is_none")]
    pub(crate) image: Option<String>,
    #[serde(
        default,
        deserialize_with = "unique",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub(crate) env: BTreeMap<String, String>,
    #[serde(
        default,
        deserialize_with = "workdir",
        skip_serializing_if = "Option::is_none"
    )]
    pub(crate) workdir: Option<String>,
    #[serde(default, skip_serializing_if = "Resources::is_empty")]
    pub(crate) resources: Resources,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) constraints: Vec<Condition>,
    #[serde(
        default,
        deserialize_with = "some_time",
        skip_serializing_if = "Option::is_none"
    )]
    pub(crate) timeout: Option<Milliseconds>,
    #[serde(default, skip_serializing_if = "Retry::is_empty")]
    pub(crate) retry: Retry,
    #[serde(
        default,
        deserialize_with = "unique",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(
        default,
        deserialize_with = "provider",
        skip_serializing_if = "Option::is_none"
    )]
    pub(crate) provider: Option<String>,
    #[serde(
        default,
        deserialize_with = "isolation",
        skip_serializing_if = "Option::is_none"
    )]
    pub(crate) isolation: Option<String>,
    #[serde(
        default,
        deserialize_with = "priority",
        skip_serializing_if = "Option::is_none"
    )]
    pub(crate) priority: Option<i32>,
    #[serde(
        default,
        deserialize_with = "some_time",
        skip_serializing_if = "Option::is_none"
    )]
    pub(crate) lost_after: Option<Milliseconds>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) grace: Option<Milliseconds>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) merge: bool,
}

/// `resources: {cpus: 2, memory: 4GiB}`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Resources {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cpus: Option<CpuMillis>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) memory: Option<Bytes>,
}

impl Resources {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// `retry: {max: 3, on: [lost, oom]}`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Retry {
    #[serde(
        default,
        deserialize_with = "retries",
        skip_serializing_if = "Option::is_none"
    )]
    pub(crate) max: Option<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) on: Vec<RetryWord>,
}

impl Retry {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Thousandths of a processor; `2`, `0.5` or `"2"`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct CpuMillis(pub(crate) u64);

/// A size; `4GiB` or a number of bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Bytes(pub(crate) u64);

/// A duration; `10m` or a number of seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Milliseconds(pub(crate) u64);

/// An end that is repeated.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct RetryWord(pub(crate) String);

/// A condition in its canonical form.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Condition(pub(crate) String);

/// Reads one text or, where that is allowed, number. What is wrong with it is found inside of the visit, so that the
/// error has the value's own line and column.
struct Read<T> {
    wanted: &'static str,
    numbers: bool,
    parse: fn(&str) -> Result<T, String>,
}

impl<T> Read<T> {
    fn number<E: Error>(&self, text: &str, found: Unexpected<'_>) -> Result<T, E> {
        match self.numbers {
            true => (self.parse)(text).map_err(E::custom),
            false => Err(E::invalid_type(found, &self.wanted)),
        }
    }
}

impl<T> Visitor<'_> for Read<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.wanted)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<T, E> {
        self.number(&value.to_string(), Unexpected::Unsigned(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<T, E> {
        self.number(&value.to_string(), Unexpected::Signed(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<T, E> {
        self.number(&value.to_string(), Unexpected::Float(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<T, E> {
        (self.parse)(value).map_err(E::custom)
    }
}

fn text<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    parse: fn(&str) -> Result<T, String>,
) -> Result<T, D::Error> {
    deserializer.deserialize_any(Read {
        wanted: "a text, in quotes if it looks like something else",
        numbers: false,
        parse,
    })
}

fn text_or_number<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    parse: fn(&str) -> Result<T, String>,
) -> Result<T, D::Error> {
    deserializer.deserialize_any(Read {
        wanted: "a number or a text",
        numbers: true,
        parse,
    })
}

/// A text as it stands.
struct Text(String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, |text| Ok(Self(text.to_owned())))
    }
}

fn plain<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Text::deserialize(deserializer).map(|text| text.0)
}

fn texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let texts = Vec::<Text>::deserialize(deserializer)?;
    Ok(texts.into_iter().map(|text| text.0).collect())
}

impl<'de> Deserialize<'de> for CpuMillis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_or_number(deserializer, |text| values::cpus(text).map(Self))
    }
}

impl Serialize for CpuMillis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.is_multiple_of(1_000) {
            true => serializer.serialize_u64(self.0 / 1_000),
            // Up to 1,000,000 thousandths, the nearest double prints as the same decimals.
            false => serializer.serialize_f64(self.0 as f64 / 1_000.0),
        }
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_or_number(deserializer, |text| values::memory(text).map(Self))
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = resources::format_bytes(self.0);
        match values::memory(&text) {
            Ok(exact) if exact == self.0 => serializer.serialize_str(&text),
            _ => serializer.serialize_u64(self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Milliseconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_or_number(deserializer, |text| milliseconds(text).map(Self))
    }
}

fn milliseconds(text: &str) -> Result<u64, String> {
    match text.parse::<f64>() {
        Ok(_) => values::seconds(text),
        Err(_) => values::duration(text),
    }
}

impl Serialize for Milliseconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = hodei_shared::duration::format(Duration::from_millis(self.0));
        match values::duration(&text) {
            Ok(exact) if exact == self.0 => serializer.serialize_str(&text),
            _ => serializer.serialize_str(&format!("{}ms", self.0)),
        }
    }
}

impl<'de> Deserialize<'de> for RetryWord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, |word| match word {
            "exit" | "lost" | "oom" | "provider" => Ok(Self(word.to_owned())),
            _ => Err(format!(
                "`{word}` is no end to repeat; write exit, lost, oom or provider"
            )),
        })
    }
}

impl<'de> Deserialize<'de> for Condition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, |text| values::constraint(text).map(Self))
    }
}

fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    text(deserializer, values::name).map(Some)
}

fn image<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    text(deserializer, values::image).map(Some)
}

fn workdir<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    text(deserializer, values::workdir).map(Some)
}

fn provider<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let provider = |text: &str| values::id::<ProviderId>(text).map(|id| Some(id.to_string()));
    text(deserializer, provider)
}

fn isolation<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    text(deserializer, |word| match word {
        "process" | "container" | "microvm" => Ok(Some(word.to_owned())),
        _ => Err(format!(
            "`{word}` is no isolation; write process, container or microvm"
        )),
    })
}

fn retries<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    text_or_number(deserializer, |text| values::retries(text).map(Some))
}

fn priority<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i32>, D::Error> {
    text_or_number(deserializer, |text| values::priority(text).map(Some))
}

/// A duration that is more than nothing: on the wire nothing means the default.
fn some_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Milliseconds>, D::Error> {
    text_or_number(deserializer, |text| match milliseconds(text)? {
        0 => Err(format!(
            "`{text}` is no time at all; leave it out for the default"
        )),
        ms => Ok(Some(Milliseconds(ms))),
    })
}

/// A map in which no key comes twice.
fn unique<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    struct Pairs;
    impl<'de> Visitor<'de> for Pairs {
        type Value = BTreeMap<String, String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("keys with texts")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
            let mut pairs = BTreeMap::new();
            while let Some((Text(key), Text(value))) = entries.next_entry()? {
                if pairs.insert(key.clone(), value).is_some() {
                    return Err(Error::custom(format!("`{key}` comes twice")));
                }
            }
            Ok(pairs)
        }
    }
    deserializer.deserialize_map(Pairs)
}

impl From<v1::JobSpec> for JobDocument {
    fn from(spec: v1::JobSpec) -> Self {
        let text = |text: String| Some(text).filter(|text| !text.is_empty());
        let number = |number: u64| Some(number).filter(|number| *number != 0);
        Self {
            name: text(spec.name),
            command: spec.command,
            script: spec.script,
            interpreter: spec.interpreter,
            image: text(spec.image),
            env: spec.env.into_iter().collect(),
            workdir: text(spec.workdir),
            resources: Resources {
                cpus: number(spec.cpu_millis).map(CpuMillis),
                memory: number(spec.memory_bytes).map(Bytes),
            },
            constraints: spec.constraints.into_iter().map(Condition).collect(),
            timeout: number(spec.timeout_ms).map(Milliseconds),
            retry: Retry {
                max: Some(spec.retries).filter(|max| *max != 0),
                on: spec.retry_on.into_iter().map(RetryWord).collect(),
            },
            labels: spec.labels.into_iter().collect(),
            provider: text(spec.provider),
            isolation: text(spec.isolation),
            priority: Some(spec.priority).filter(|priority| *priority != 0),
            lost_after: number(spec.lost_after_ms).map(Milliseconds),
            grace: spec.grace_ms.map(Milliseconds),
            merge: spec.merge,
        }
    }
}
