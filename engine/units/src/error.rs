//! What can be wrong with a value.

use std::fmt;

/// [`DURATION_MAX`](crate::parse::DURATION_MAX) in days.
pub(crate) const DURATION_MAX_DAYS: u64 = 30;

/// What a value is an amount of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantity {
    /// A span of time.
    Duration,
    /// A share of a whole, with its sign.
    Percent,
    /// A share of a whole, with its sign or as a number.
    Share,
    /// A number of bytes.
    Bytes,
    /// Bits a second.
    BitsPerSecond,
}

impl fmt::Display for Quantity {
    /// Examples of how one is written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Duration => "90s, 1m30s or 500ms",
            Self::Percent => "1% or 0.5%",
            Self::Share => "10% or 0.1",
            Self::Bytes => "256kB or 1MiB",
            Self::BitsPerSecond => "2Mbps or 500kbps",
        })
    }
}

/// Why a text is no value of its quantity. Its text is the end of a sentence that begins with the
/// value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// There is nothing.
    #[error("it is empty; write it like {0}")]
    Empty(Quantity),
    /// A part of a duration begins with something else than a number.
    #[error("'{0}' does not start with a number; write it like {quantity}", quantity = Quantity::Duration)]
    NoNumberAtStart(String),
    /// What stands before the unit is not a finite number.
    #[error("'{text}' is not a number; write it like {quantity}")]
    NotANumber {
        /// What stands there.
        text: String,
        /// Of what it should be a number.
        quantity: Quantity,
    },
    /// A number stands without a unit.
    #[error("it has a number without a unit; write it like {0}")]
    NoUnit(Quantity),
    /// A percentage stands without its sign.
    #[error("the % sign is missing; write it like {quantity}", quantity = Quantity::Percent)]
    NoPercentSign,
    /// The unit is none of this quantity.
    #[error("unknown unit '{unit}'; write it like {quantity}")]
    UnknownUnit {
        /// What stands there.
        unit: String,
        /// Of what it should be a unit.
        quantity: Quantity,
    },
    /// A share lies outside of the whole.
    #[error("it must lie between 0% and 100%, like {0}")]
    OutsideWhole(Quantity),
    /// A duration is longer than [`DURATION_MAX`](crate::parse::DURATION_MAX).
    #[error("it is longer than {DURATION_MAX_DAYS} days")]
    TooLong,
}
