//! How one YAML value becomes one typed setting.

use super::{
    address::{AdvertiseAddress, SeedAddress},
    audit::AuditTarget,
    duration::{format_duration, parse_duration},
    name::{FileName, Labels, LogFormat},
};
use p2p_core::{ClusterId, NodeId};
use serde_yaml::Value;
use std::{
    collections::BTreeMap, fmt::Display, net::IpAddr, num::NonZeroU32, path::PathBuf, str::FromStr,
    time::Duration,
};

/// Longest text of a value that an error repeats, in characters.
const MAX_SHOWN: usize = 60;
/// Most seed addresses of one node.
const MAX_SEEDS: usize = 64;
/// Most addresses that one node advertises.
const MAX_ADVERTISED: usize = 16;

/// A value that does not do.
pub(super) struct Wrong {
    /// The value, or the part of it, as errors show it.
    pub(super) found: String,
    /// Why, where its type alone does not tell.
    pub(super) why: Option<String>,
}

impl Wrong {
    pub(super) fn kind(value: &Value) -> Self {
        Self { found: in_short(value), why: None }
    }

    pub(super) fn because(value: &Value, why: impl Display) -> Self {
        Self { found: in_short(value), why: Some(why.to_string()) }
    }
}

/// A type that a key may have.
pub(super) trait Setting: Sized {
    /// What a value must be, in words that follow "expected".
    const EXPECTED: &'static str;

    /// Reads it from a YAML value.
    fn read(value: &Value) -> Result<Self, Wrong>;

    /// The YAML value that reads as this one; the same for whatever was written to say so.
    fn show(&self) -> Value;
}

/// Settings that serde reads as they are: no conversion between types takes place.
macro_rules! plain {
    ($($type:ty: $expected:literal;)+) => {$(
        impl Setting for $type {
            const EXPECTED: &'static str = $expected;
            fn read(value: &Value) -> Result<Self, Wrong> {
                serde_yaml::from_value(value.clone()).map_err(|_| Wrong::kind(value))
            }
            fn show(&self) -> Value {
                plain_value(*self)
            }
        }
    )+};
}

/// Numbers and booleans.
fn plain_value(value: impl serde::Serialize) -> Value {
    serde_yaml::to_value(value).expect("a number or a boolean")
}

plain! {
    bool: "true or false";
    u16: "a whole number from 0 to 65535";
    u32: "a whole number from 0 to 4294967295";
    NonZeroU32: "a whole number from 1 to 4294967295";
}

/// Settings that are written as text.
macro_rules! textual {
    ($($type:ty: $expected:literal;)+) => {$(
        impl Setting for $type {
            const EXPECTED: &'static str = $expected;
            fn read(value: &Value) -> Result<Self, Wrong> {
                <$type>::from_str(text(value)?).map_err(|why| Wrong::because(value, why))
            }
            fn show(&self) -> Value {
                Value::from(self.to_string())
            }
        }
    )+};
}

textual! {
    NodeId: "a node id such as worker-1";
    ClusterId: "a cluster id such as p2p-core";
    SeedAddress: "an address such as 10.0.0.5:8001";
    AdvertiseAddress: "an address such as 10.0.0.5 or 10.0.0.5:8001";
    IpAddr: "an IP address such as 0.0.0.0, 127.0.0.1 or ::";
    FileName: "a file name without a directory";
    AuditTarget: "stderr or the path of a file";
    LogFormat: "pretty or json";
}

impl Setting for String {
    const EXPECTED: &'static str = "text";
    fn read(value: &Value) -> Result<Self, Wrong> {
        text(value).map(str::to_owned)
    }
    fn show(&self) -> Value {
        Value::from(self.as_str())
    }
}

impl Setting for PathBuf {
    const EXPECTED: &'static str = "a path";
    fn read(value: &Value) -> Result<Self, Wrong> {
        match text(value)? {
            "" => Err(Wrong::kind(value)),
            path if path.contains('\0') => Err(Wrong::because(value, "a path has no NUL characters")),
            path => Ok(path.into()),
        }
    }
    fn show(&self) -> Value {
        Value::from(self.to_string_lossy())
    }
}

impl Setting for Duration {
    const EXPECTED: &'static str = "seconds or a duration such as 250ms, 5s, 2m, 1h or 30d";
    fn read(value: &Value) -> Result<Self, Wrong> {
        let text = match value {
            Value::Number(number) => number.to_string(),
            Value::String(text) => text.clone(),
            Value::Null | Value::Bool(_) | Value::Sequence(_) | Value::Mapping(_) | Value::Tagged(_) => {
                return Err(Wrong::kind(value));
            }
        };
        parse_duration(&text).map_err(|why| match why {
            super::InvalidDuration::Form => Wrong::kind(value),
            super::InvalidDuration::TooLong => Wrong::because(value, why),
        })
    }
    fn show(&self) -> Value {
        Value::from(format_duration(*self))
    }
}

impl Setting for Labels {
    const EXPECTED: &'static str = "a mapping such as {disk: ssd}";
    fn read(value: &Value) -> Result<Self, Wrong> {
        let mut labels = BTreeMap::new();
        for (name, value) in value.as_mapping().ok_or_else(|| Wrong::kind(value))? {
            labels.insert(text(name)?.to_owned(), text(value)?.to_owned());
        }
        Labels::try_from(labels).map_err(|why| Wrong::because(value, why))
    }
    fn show(&self) -> Value {
        let label = |(name, value): (&String, &String)| (name.as_str().into(), value.as_str().into());
        Value::Mapping(self.as_map().iter().map(label).collect())
    }
}

impl Setting for Vec<SeedAddress> {
    const EXPECTED: &'static str = "a list such as [\"10.0.0.5:8001\", \"coordinator.example:8001\"]";
    fn read(value: &Value) -> Result<Self, Wrong> {
        list(value, MAX_SEEDS)
    }
    fn show(&self) -> Value {
        show_list(self)
    }
}

impl Setting for Vec<AdvertiseAddress> {
    const EXPECTED: &'static str = "a list such as [\"10.0.0.5\"] or [\"10.0.0.5:8001\"]";
    fn read(value: &Value) -> Result<Self, Wrong> {
        list(value, MAX_ADVERTISED)
    }
    fn show(&self) -> Value {
        show_list(self)
    }
}

/// No value is a value too.
impl<T: Setting> Setting for Option<T> {
    const EXPECTED: &'static str = T::EXPECTED;
    fn read(value: &Value) -> Result<Self, Wrong> {
        if value.is_null() { Ok(None) } else { T::read(value).map(Some) }
    }
    fn show(&self) -> Value {
        self.as_ref().map_or(Value::Null, T::show)
    }
}

pub(super) fn text(value: &Value) -> Result<&str, Wrong> {
    value.as_str().ok_or_else(|| match value {
        Value::Bool(_) | Value::Number(_) => Wrong::because(value, "put it in quotes to make it text"),
        Value::Null | Value::String(_) | Value::Sequence(_) | Value::Mapping(_) | Value::Tagged(_) => {
            Wrong::kind(value)
        }
    })
}

pub(super) fn list<T: Setting>(value: &Value, max: usize) -> Result<Vec<T>, Wrong> {
    let items = value.as_sequence().ok_or_else(|| Wrong::kind(value))?;
    if items.len() > max {
        return Err(Wrong::because(value, format!("{} items, at most {max} are allowed", items.len())));
    }
    let read = |(index, item)| {
        T::read(item)
            .map_err(|wrong| Wrong { found: format!("item {}: {}", index + 1, wrong.found), ..wrong })
    };
    items.iter().enumerate().map(read).collect()
}

pub(super) fn show_list<T: Setting>(items: &[T]) -> Value {
    Value::Sequence(items.iter().map(T::show).collect())
}

/// A mapping of those of these fields that have a value, in their order.
pub(super) fn show_fields<const N: usize>(fields: [(&str, Value); N]) -> Value {
    let given = fields.into_iter().filter(|(_, value)| !value.is_null());
    Value::Mapping(given.map(|(name, value)| (name.into(), value)).collect())
}

/// A value as errors show it: on one line, and short.
fn in_short(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(value) => value.to_string(),
        Value::String(text) if text.chars().count() > MAX_SHOWN => {
            format!("{:?}...", text.chars().take(MAX_SHOWN).collect::<String>())
        }
        Value::String(text) => format!("{text:?}"),
        Value::Sequence(_) => "a list".to_owned(),
        Value::Mapping(_) => "a mapping".to_owned(),
        Value::Tagged(_) => "a value with a tag".to_owned(),
    }
}
