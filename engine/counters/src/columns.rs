//! The counters of a stream as one flat row.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::figure::to_the_millisecond;
use crate::{Counter, Counters, Scope, Unit, Value};

/// Counters of a stream in one row: in the JSON, and in the CSV, all stand side by side under the
/// names of their columns. Those of wider scope are left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Columns<T>(pub T);

impl<T> Deref for Columns<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Columns<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

fn is_a_streams(counter: &Counter) -> bool {
    counter.scope == Scope::Stream
}

impl<T: Counters> Columns<T> {
    /// Their names, in order.
    pub fn names() -> impl Iterator<Item = &'static str> {
        let streams = T::table().iter().filter(|counter| is_a_streams(counter));
        streams.map(|counter| counter.column.as_str())
    }
}

impl<T: Counters> Serialize for Columns<T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        let rows = T::table().iter().zip(self.0.list());
        for (counter, value) in rows.filter(|(counter, _)| is_a_streams(counter)) {
            match value {
                Value::Unknown => map.serialize_entry(&counter.column, &None::<u64>)?,
                Value::Count(count) => map.serialize_entry(&counter.column, &count)?,
                Value::Time(time) => {
                    map.serialize_entry(&counter.column, &to_the_millisecond(time))?;
                }
            }
        }
        map.end()
    }
}

/// A value of a row that is read; what is no number is unknown.
#[derive(Deserialize)]
#[serde(untagged)]
enum Read {
    Count(u64),
    Number(f64),
    Other(IgnoredAny),
}

impl Read {
    fn value(&self, unit: Unit) -> Value {
        match (self, unit) {
            (Self::Count(seconds), Unit::Seconds) => Value::Time(Duration::from_secs(*seconds)),
            (Self::Number(seconds), Unit::Seconds) => {
                Duration::try_from_secs_f64(*seconds).map_or(Value::Unknown, Value::Time)
            }
            (Self::Count(count), _) => Value::Count(*count),
            (Self::Number(_) | Self::Other(_), _) => Value::Unknown,
        }
    }
}

struct Row<T>(PhantomData<T>);

impl<'de, T: Counters> Visitor<'de> for Row<T> {
    type Value = Columns<T>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the counters of a stream")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut read: BTreeMap<Cow<'de, str>, Read> = BTreeMap::new();
        while let Some((key, value)) = map.next_entry()? {
            read.insert(key, value);
        }
        let mut rows = T::table().iter();
        let mut row = T::default();
        row.set(&mut || {
            let counter = rows.next()?;
            Some(read.get(counter.column.as_str())?.value(counter.unit))
        });
        Ok(Columns(row))
    }
}

impl<'de, T: Counters> Deserialize<'de> for Columns<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Row(PhantomData))
    }
}

impl<T: Counters> JsonSchema for Columns<T> {
    fn schema_name() -> Cow<'static, str> {
        "StreamColumns".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let (mut properties, mut required) = (serde_json::Map::new(), Vec::new());
        let unknown = T::default().list();
        let counters = T::table().iter().zip(unknown).filter(|one| is_a_streams(one.0));
        for (counter, value) in counters {
            let mut property = match value {
                Value::Time(_) => json_schema!({"type": "number", "format": "double"}),
                Value::Count(_) => {
                    json_schema!({"type": "integer", "format": "uint64", "minimum": 0})
                }
                Value::Unknown => {
                    json_schema!({"type": ["integer", "null"], "format": "uint64", "minimum": 0})
                }
            };
            property.insert("description".to_owned(), counter.help.into());
            properties.insert(counter.column.clone(), property.into());
            required.push(counter.column.clone());
        }
        json_schema!({"type": "object", "properties": properties, "required": required})
    }
}
