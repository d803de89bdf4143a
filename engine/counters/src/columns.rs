//! The counters of a stream as one flat row.

use std::borrow::Cow;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::figure::to_the_millisecond;
use crate::{Counter, Counters, Scope, Seconds, Unit, Value};

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

struct Row<T>(PhantomData<T>);

impl<'de, T: Counters> Visitor<'de> for Row<T> {
    type Value = Columns<T>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the counters of a stream")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let table = T::table();
        let mut values: Vec<Option<Value>> = vec![None; table.len()];
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            let is = |counter: &Counter| is_a_streams(counter) && counter.column == key;
            match table.iter().position(is) {
                Some(at) => values[at] = Some(value(&mut map, table[at].unit)?),
                // Another field of the row, or a counter of a later version.
                None => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        let mut values = values.into_iter();
        let mut row = T::default();
        row.set(&mut || values.next().flatten());
        Ok(Columns(row))
    }
}

/// `null` is unknown; what is neither that nor a number is an error, as it is in the sections.
fn value<'de, M: MapAccess<'de>>(map: &mut M, unit: Unit) -> Result<Value, M::Error> {
    Ok(match unit {
        Unit::Seconds => map.next_value::<Option<Seconds>>()?.map(|time| Value::Time(time.0)),
        _ => map.next_value::<Option<u64>>()?.map(Value::Count),
    }
    .unwrap_or(Value::Unknown))
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
