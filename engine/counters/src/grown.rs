//! What counters grew by, where most did not.

use std::borrow::Cow;
use std::collections::HashMap;
use std::marker::PhantomData;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::figure::to_the_millisecond;
use crate::{Counters, Value};

/// By how much each counter of `T` grew, by its key; those that did not are left out, and so are
/// maxima. There may be one of these a second for a day, so it holds places in the table, not keys.
#[derive(Debug, Clone)]
pub struct Grown<T>(Vec<(u16, f64)>, PhantomData<T>);

impl<T> Default for Grown<T> {
    fn default() -> Self {
        Self(Vec::new(), PhantomData)
    }
}

impl<T> PartialEq for Grown<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<T: Counters> Grown<T> {
    /// Of a difference.
    pub fn of(difference: &T) -> Self {
        let rows = T::table().iter().zip(difference.list()).enumerate();
        let grown = rows.filter(|(_, (counter, _))| counter.sum).filter_map(|(at, (_, value))| {
            let value = match value {
                Value::Time(time) => to_the_millisecond(time),
                value => value.number()?,
            };
            (value > 0.0).then_some((at as u16, value))
        });
        Self(grown.collect(), PhantomData)
    }

    /// Adds another's.
    pub fn merge(&mut self, other: &Self) {
        other.0.iter().for_each(|(at, value)| self.add(*at, *value));
    }

    fn add(&mut self, at: u16, value: f64) {
        match self.0.binary_search_by_key(&at, |one| one.0) {
            Ok(place) => self.0[place].1 += value,
            Err(place) => self.0.insert(place, (at, value)),
        }
    }

    /// By how much this one grew.
    pub fn get(&self, key: &str) -> f64 {
        let at = T::table().iter().position(|counter| counter.key == key);
        let grown = at.and_then(|at| self.0.iter().find(|one| usize::from(one.0) == at));
        grown.map_or(0.0, |one| one.1)
    }
}

impl<T: Counters> Serialize for Grown<T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let table = T::table();
        let mut map = to.serialize_map(Some(self.0.len()))?;
        for &(at, value) in &self.0 {
            let Some(counter) = table.get(usize::from(at)) else { continue };
            // Whole numbers are written as such.
            if value.fract() == 0.0 {
                map.serialize_entry(&counter.key, &(value as u64))?;
            } else {
                let thousandths = Duration::from_secs_f64(value);
                map.serialize_entry(&counter.key, &to_the_millisecond(thousandths))?;
            }
        }
        map.end()
    }
}

struct Map<T>(PhantomData<T>);

impl<'de, T: Counters> Visitor<'de> for Map<T> {
    type Value = Grown<T>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("what counters grew by")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let table = T::table();
        let places: HashMap<&str, u16> =
            table.iter().zip(0..).map(|(counter, at)| (counter.key.as_str(), at)).collect();
        let mut grown = Grown::default();
        while let Some((key, value)) = map.next_entry::<Cow<'de, str>, f64>()? {
            // A later version may have others. There is no growth below or without bounds.
            let place = places.get(&*key).filter(|_| (0.0..1e18).contains(&value));
            if let Some(place) = place {
                grown.add(*place, value);
            }
        }
        Ok(grown)
    }
}

impl<'de, T: Counters> Deserialize<'de> for Grown<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Map(PhantomData))
    }
}

impl<T: Counters> JsonSchema for Grown<T> {
    fn schema_name() -> Cow<'static, str> {
        "Grown".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "object", "additionalProperties": {"type": "number"}})
    }
}
