//! Rooms whose numbers of subscribers are drawn.

use std::fmt;
use std::str::FromStr;

use stampede_impair::{Rng, seeded};

/// Most subscribers of a drawn room; more is a typing error.
pub const ROOM_SIZE_MAX: u32 = 100_000;
/// Most sizes of a list.
const SIZES_MAX: usize = 100;
/// Largest weight of a size.
const WEIGHT_MAX: u32 = 1_000_000;

/// How large rooms are: `uniform:2-10`, `exponential:8` or `1:60,50:30,500:1`.
#[derive(Debug, Clone, PartialEq)]
pub enum RoomSizes {
    /// Every size between these, both included, equally often.
    Uniform {
        /// The smallest.
        min: u32,
        /// The largest.
        max: u32,
    },
    /// At least one and this many in the mean: the geometric distribution, which among whole
    /// numbers is the exponential one.
    Exponential {
        /// In the mean, 1 or more.
        mean: f64,
    },
    /// One of these, each as often as its weight says.
    Weighted(Vec<WeightedSize>),
}

/// A size and how often it is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WeightedSize {
    /// Subscribers.
    pub size: u32,
    /// Its share of the sum of all weights.
    pub weight: u32,
}

/// Why a distribution can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RoomSizesError {
    /// Neither a name nor a list.
    #[error(
        "'{0}' is no distribution; write it like uniform:2-10, exponential:8 or 1:60,50:30 \
         (SIZE:WEIGHT)"
    )]
    Unknown(String),
    /// No number of subscribers.
    #[error("'{0}' is no size of a room; it must be a whole number from 1 to {ROOM_SIZE_MAX}")]
    Size(String),
    /// No weight.
    #[error("'{0}' is no weight; it must be a whole number from 1 to {WEIGHT_MAX}")]
    Weight(String),
    /// No mean.
    #[error("'{0}' is no mean size of a room; it must be a number from 1 to {ROOM_SIZE_MAX}")]
    Mean(String),
    /// Only one end, or ends in the wrong order.
    #[error("'{0}' is no range; write it like uniform:2-10, the smaller one first")]
    Range(String),
    /// Too many sizes.
    #[error("{0} sizes are too many; {SIZES_MAX} is the most")]
    TooMany(usize),
}

impl FromStr for RoomSizes {
    type Err = RoomSizesError;

    fn from_str(text: &str) -> Result<Self, RoomSizesError> {
        let (name, rest) =
            text.split_once(':').ok_or_else(|| RoomSizesError::Unknown(text.to_owned()))?;
        match name.trim() {
            "uniform" => uniform(rest.trim()),
            "exponential" => exponential(rest.trim()),
            name if name.starts_with(|c: char| c.is_ascii_alphabetic()) => {
                Err(RoomSizesError::Unknown(name.to_owned()))
            }
            _ => weighted(text),
        }
    }
}

fn size(text: &str) -> Result<u32, RoomSizesError> {
    let size = text.trim().parse().ok().filter(|size| (1..=ROOM_SIZE_MAX).contains(size));
    size.ok_or_else(|| RoomSizesError::Size(text.to_owned()))
}

fn uniform(text: &str) -> Result<RoomSizes, RoomSizesError> {
    let range = || RoomSizesError::Range(text.to_owned());
    let (min, max) = text.split_once('-').ok_or_else(range)?;
    let (min, max) = (size(min)?, size(max)?);
    if min <= max { Ok(RoomSizes::Uniform { min, max }) } else { Err(range()) }
}

fn exponential(text: &str) -> Result<RoomSizes, RoomSizesError> {
    let mean = text.parse().ok().filter(|mean| (1.0..=f64::from(ROOM_SIZE_MAX)).contains(mean));
    let mean = mean.ok_or_else(|| RoomSizesError::Mean(text.to_owned()))?;
    Ok(RoomSizes::Exponential { mean })
}

fn weighted(text: &str) -> Result<RoomSizes, RoomSizesError> {
    let count = text.split(',').count();
    if count > SIZES_MAX {
        return Err(RoomSizesError::TooMany(count));
    }
    let one = |part: &str| {
        let (of, weight) =
            part.split_once(':').ok_or_else(|| RoomSizesError::Unknown(part.to_owned()))?;
        let size = size(of)?;
        let found = weight.trim().parse().ok().filter(|weight| (1..=WEIGHT_MAX).contains(weight));
        let weight = found.ok_or_else(|| RoomSizesError::Weight(weight.to_owned()))?;
        Ok(WeightedSize { size, weight })
    };
    text.split(',').map(one).collect::<Result<_, _>>().map(RoomSizes::Weighted)
}

impl fmt::Display for RoomSizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uniform { min, max } => write!(f, "uniform:{min}-{max}"),
            Self::Exponential { mean } => write!(f, "exponential:{mean}"),
            Self::Weighted(sizes) => {
                for (number, WeightedSize { size, weight }) in sizes.iter().enumerate() {
                    let comma = if number == 0 { "" } else { "," };
                    write!(f, "{comma}{size}:{weight}")?;
                }
                Ok(())
            }
        }
    }
}

impl RoomSizes {
    /// The size of each of so many rooms. The same seed draws the same, and further rooms change
    /// none of those before them.
    #[must_use]
    pub fn draw(&self, seed: u64, rooms: usize) -> Vec<u32> {
        (0..rooms)
            .map(|number| self.one(&mut seeded(seed, &format!("room size {number}"))))
            .collect()
    }

    fn one(&self, rng: &mut Rng) -> u32 {
        match self {
            Self::Uniform { min, max } => rng.u32(*min..=*max),
            Self::Exponential { mean } if *mean <= 1.0 => 1,
            Self::Exponential { mean } => {
                // How many tries, each of which succeeds once in `mean`, the first success takes.
                let failures = (1.0 - rng.f64()).ln() / (1.0 - 1.0 / mean).ln();
                (failures as u32).saturating_add(1).min(ROOM_SIZE_MAX)
            }
            Self::Weighted(sizes) => {
                let sum = sizes.iter().map(|one| u64::from(one.weight)).sum::<u64>().max(1);
                let mut left = rng.u64(0..sum);
                let drawn = sizes.iter().find(|one| {
                    let weight = u64::from(one.weight);
                    let found = left < weight;
                    left = left.saturating_sub(weight);
                    found
                });
                drawn.map_or(1, |one| one.size)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Draft, RoomDraft, Scenario};

    fn sizes(text: &str) -> RoomSizes {
        text.parse().unwrap()
    }

    fn drawn(text: &str) -> Vec<u32> {
        sizes(text).draw(7, 10_000)
    }

    #[test]
    fn what_is_written_is_read_back() {
        for text in ["uniform:2-10", "uniform:7-7", "exponential:8", "exponential:2.5", "1:60,50:3"]
        {
            assert_eq!(sizes(text).to_string(), text);
        }
        assert_eq!(sizes(" 1 : 60 , 50:3").to_string(), "1:60,50:3");
        let many = ["1:1"; SIZES_MAX + 1].join(",");
        for (text, why) in [
            ("", "'' is no distribution"),
            ("uniform", "'uniform' is no distribution; write it like uniform:2-10"),
            ("normal:5", "'normal' is no distribution"),
            ("uniform:5", "'5' is no range"),
            ("uniform:5-2", "'5-2' is no range"),
            ("uniform:0-2", "'0' is no size"),
            ("uniform:-1-2", "'' is no size"),
            ("uniform:1-200000", "'200000' is no size"),
            ("exponential:0.5", "'0.5' is no mean"),
            ("exponential:NaN", "'NaN' is no mean"),
            ("exponential:1e9", "'1e9' is no mean"),
            ("5:0", "'0' is no weight"),
            ("5:1.5", "'1.5' is no weight"),
            ("5:1,6", "'6' is no distribution"),
            ("5:1,", "'' is no distribution"),
            (&many, "101 sizes are too many"),
        ] {
            let error = text.parse::<RoomSizes>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn rooms_are_as_large_as_the_distribution_says() {
        let uniform = drawn("uniform:3-5");
        for size in 3..=5 {
            let rooms = uniform.iter().filter(|one| **one == size).count();
            assert!((3_100..3_570).contains(&rooms), "{rooms} rooms of {size}");
        }
        let mean = |rooms: &[u32]| {
            rooms.iter().map(|size| f64::from(*size)).sum::<f64>() / rooms.len() as f64
        };
        for (wanted, text) in
            [(1.0, "exponential:1"), (2.5, "exponential:2.5"), (80.0, "exponential:80")]
        {
            let rooms = drawn(text);
            assert!((mean(&rooms) / wanted - 1.0).abs() < 0.05, "{text}: {}", mean(&rooms));
            assert!(rooms.iter().all(|size| *size >= 1));
        }
        let weighted = drawn("1:60,50:30,500:10");
        for (size, share) in [(1, 0.6), (50, 0.3), (500, 0.1)] {
            let rooms = weighted.iter().filter(|one| **one == size).count() as f64;
            assert!((rooms / 10_000.0 - share).abs() < 0.02, "{rooms} rooms of {size}");
        }
    }

    #[test]
    fn drawn_sizes_are_the_rooms_of_the_run() {
        let draft = |rooms, text: &str| Draft {
            rooms,
            seed: Some(7),
            room_sizes: Some(sizes(text)),
            ..Draft::default()
        };
        let text = "1:60,50:30,500:10";
        let scenario = Scenario::new(draft(40, text)).unwrap();
        let rooms: Vec<_> = scenario.shape.rooms.iter().map(|room| room.subscribers).collect();
        assert_eq!(rooms, sizes(text).draw(7, 40));
        let sum: u32 = rooms.iter().sum();
        assert_eq!((scenario.rooms, scenario.subscribers), (40, sum.div_ceil(40)));
        assert_eq!(scenario.participants_peak(), sum as usize + 40);
        // Many small rooms are fine, and what the sizes come to is bounded.
        assert!(Scenario::new(draft(100_000, "exponential:3")).is_ok());
        let tables = vec![RoomDraft { subscribers: Some(3), ..RoomDraft::default() }];
        let stages = vec!["5s:5".parse().unwrap()];
        for (draft, why) in [
            (draft(100, "uniform:50000-60000"), "participants are more than one run takes"),
            (Draft { seed: None, ..draft(2, text) }, "takes a seed: add --seed 1"),
            (Draft { subscribers: Some(3), ..draft(2, text) }, "and so does --subscribers"),
            (Draft { room_drafts: tables, ..draft(2, text) }, "and so does a [[room]]'s"),
            (Draft { stages, ..draft(2, text) }, "and so does --stage"),
        ] {
            let error = Scenario::new(draft).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn the_seed_repeats_them_and_further_rooms_change_none() {
        let sizes = sizes("uniform:1-1000");
        let rooms = sizes.draw(7, 100);
        assert_eq!(sizes.draw(7, 200)[..100], rooms);
        assert_ne!(sizes.draw(8, 100), rooms);
    }
}
