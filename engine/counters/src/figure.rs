//! What a counter can be.

use std::borrow::Cow;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Counter, Field, Place};

/// The value of one counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// Not known.
    Unknown,
    /// How many.
    Count(u64),
    /// How long.
    Time(Duration),
}

impl Value {
    /// As a number; a time in seconds.
    pub fn number(self) -> Option<f64> {
        match self {
            Self::Unknown => None,
            Self::Count(count) => Some(count as f64),
            Self::Time(time) => Some(time.as_secs_f64()),
        }
    }
}

/// A counter, or a group of them.
pub trait Figure: Copy + Default + Send + Sync + 'static {
    /// Adds another's. What only one of them knows is as that one knows it. Counts of a file may be
    /// any number, so sums end at the largest.
    fn merge(&mut self, other: &Self);

    /// Adds another's. What one of them does not know is not known of both.
    fn merge_known(&mut self, other: &Self);

    /// The sum of all; what one of them does not know is unknown. `None` if there are none.
    fn sum_of(all: impl IntoIterator<Item = Self>) -> Option<Self> {
        all.into_iter().reduce(|mut sum, one| {
            sum.merge_known(&one);
            sum
        })
    }

    /// What was counted since `earlier`, an older copy of the same.
    #[must_use]
    fn since(&self, earlier: &Self) -> Self;

    /// No counter lower than in `least`.
    #[must_use]
    fn at_least(&self, least: &Self) -> Self;

    /// Adds its rows to a table.
    fn describe(field: &Field, at: &Place, table: &mut Vec<Counter>);

    /// Its values, in the order of its rows.
    fn values(&self, to: &mut dyn FnMut(Value));

    /// Takes values in the order of its rows; what is `None` stays as it is.
    fn set(&mut self, from: &mut dyn FnMut() -> Option<Value>);
}

impl Figure for u64 {
    #[inline]
    fn merge(&mut self, other: &Self) {
        *self = self.saturating_add(*other);
    }

    fn merge_known(&mut self, other: &Self) {
        self.merge(other);
    }

    fn since(&self, earlier: &Self) -> Self {
        self.saturating_sub(*earlier)
    }

    fn at_least(&self, least: &Self) -> Self {
        *self.max(least)
    }

    fn describe(field: &Field, at: &Place, table: &mut Vec<Counter>) {
        table.push(Counter::of(field, at, true));
    }

    fn values(&self, to: &mut dyn FnMut(Value)) {
        to(Value::Count(*self));
    }

    fn set(&mut self, from: &mut dyn FnMut() -> Option<Value>) {
        if let Some(Value::Count(count)) = from() {
            *self = count;
        }
    }
}

impl Figure for Option<u64> {
    #[inline]
    fn merge(&mut self, other: &Self) {
        if let Some(other) = other {
            *self = Some(self.unwrap_or(0).saturating_add(*other));
        }
    }

    fn merge_known(&mut self, other: &Self) {
        *self = self.zip(*other).map(|(own, other)| own.saturating_add(other));
    }

    fn since(&self, earlier: &Self) -> Self {
        self.map(|now| now.saturating_sub(earlier.unwrap_or(0)))
    }

    fn at_least(&self, least: &Self) -> Self {
        *self.max(least)
    }

    fn describe(field: &Field, at: &Place, table: &mut Vec<Counter>) {
        table.push(Counter::of(field, at, true));
    }

    fn values(&self, to: &mut dyn FnMut(Value)) {
        to(self.map_or(Value::Unknown, Value::Count));
    }

    fn set(&mut self, from: &mut dyn FnMut() -> Option<Value>) {
        match from() {
            Some(Value::Count(count)) => *self = Some(count),
            Some(Value::Unknown) => *self = None,
            Some(Value::Time(_)) | None => {}
        }
    }
}

/// A sum of times: in the JSON seconds, to the millisecond.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seconds(pub Duration);

/// The longest of several times; as [`Seconds`] in the JSON.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Longest(pub Duration);

impl Longest {
    /// Takes one more time.
    #[inline]
    pub fn record(&mut self, time: Duration) {
        self.0 = self.0.max(time);
    }
}

fn sum(one: Duration, other: Duration) -> Duration {
    one.saturating_add(other)
}

/// Those of several maxima begin anew with nothing: the longest is that of the later copy.
fn later(now: Duration, _: Duration) -> Duration {
    now
}

macro_rules! times {
    ($($name:ident: $merge:expr, $since:expr, $sum:literal;)+) => {
        $(
            impl $name {
                /// In seconds.
                pub fn as_secs_f64(self) -> f64 {
                    self.0.as_secs_f64()
                }
            }

            impl Figure for $name {
                #[inline]
                fn merge(&mut self, other: &Self) {
                    self.0 = $merge(self.0, other.0);
                }

                fn merge_known(&mut self, other: &Self) {
                    self.merge(other);
                }

                fn since(&self, earlier: &Self) -> Self {
                    Self($since(self.0, earlier.0))
                }

                fn at_least(&self, least: &Self) -> Self {
                    *self.max(least)
                }

                fn describe(field: &Field, at: &Place, table: &mut Vec<Counter>) {
                    table.push(Counter::of(field, at, $sum));
                }

                fn values(&self, to: &mut dyn FnMut(Value)) {
                    to(Value::Time(self.0));
                }

                fn set(&mut self, from: &mut dyn FnMut() -> Option<Value>) {
                    if let Some(Value::Time(time)) = from() {
                        self.0 = time;
                    }
                }
            }

            impl Serialize for $name {
                fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                    to.serialize_f64(to_the_millisecond(self.0))
                }
            }

            impl<'de> Deserialize<'de> for $name {
                fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                    let seconds = f64::deserialize(from)?;
                    Duration::try_from_secs_f64(seconds).map(Self).map_err(D::Error::custom)
                }
            }

            impl JsonSchema for $name {
                fn inline_schema() -> bool {
                    true
                }

                fn schema_name() -> Cow<'static, str> {
                    stringify!($name).into()
                }

                fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                    f64::json_schema(generator)
                }
            }
        )+
    };
}

times! {
    Seconds: sum, Duration::saturating_sub, true;
    Longest: Ord::max, later, false;
}

/// Seconds as they are written.
pub(crate) fn to_the_millisecond(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e3).round() / 1e3
}
