//! How often what repeats in a message may.

use thiserror::Error;

use super::{Fields, Malformed, Value};

/// Most limits of a shape.
const LIMITS_MAX: usize = 8;

/// How many of something a message may hold, wherever in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Its name, in the plural, as people read it: "tracks".
    pub what: &'static str,
    /// The most.
    pub most: usize,
}

/// A field that repeats, or holds one that does.
#[derive(Debug)]
pub struct Part {
    number: u32,
    /// Into [`Shape::limits`].
    limit: Option<usize>,
    inside: &'static [Part],
}

impl Part {
    /// A field that holds a message, with what repeats inside of it.
    #[must_use]
    pub const fn one(number: u32, inside: &'static [Part]) -> Self {
        Self { number, limit: None, inside }
    }

    /// A field that repeats (a map does too), which limit is of it, and what repeats inside of each.
    #[must_use]
    pub const fn list(number: u32, limit: usize, inside: &'static [Part]) -> Self {
        Self { number, limit: Some(limit), inside }
    }
}

/// Why a message is not to be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refusal {
    /// It is no protobuf message.
    #[error("it is no protobuf message")]
    Malformed,
    /// It holds more of something than it may.
    #[error("it holds more than {most} {what}")]
    TooMany {
        /// [`Limit::what`].
        what: &'static str,
        /// [`Limit::most`].
        most: usize,
    },
}

impl From<Malformed> for Refusal {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// What repeats in a kind of message, and how often it may. What a shape does not name is not
/// bounded: all lists of texts and messages are to be named that a decoder would make.
#[derive(Debug)]
pub struct Shape {
    limits: &'static [Limit],
    parts: &'static [Part],
}

impl Shape {
    /// A shape of these limits and parts.
    ///
    /// # Panics
    /// If there are more than eight limits, or a part has none of them: so that it is found when it is
    /// compiled, keep it in a `static`.
    #[must_use]
    pub const fn new(limits: &'static [Limit], parts: &'static [Part]) -> Self {
        assert!(limits.len() <= LIMITS_MAX, "more limits than are counted");
        assert!(are_of(parts, limits.len()), "a part has a limit that there is not");
        Self { limits, parts }
    }

    /// Counts what repeats, without decoding or allocating. A message too short to hold too many of
    /// anything is not looked at: whether it is one is the decoder's to say.
    ///
    /// # Errors
    /// [`Refusal`]; a message that passed may still be malformed inside of what the shape does not name.
    pub fn check(&self, message: &[u8]) -> Result<(), Refusal> {
        // An element has two bytes at least.
        if self.limits.iter().all(|limit| message.len() / 2 <= limit.most) {
            return Ok(());
        }
        self.count(message, self.parts, &mut [0; LIMITS_MAX])
    }

    fn count(
        &self,
        message: &[u8],
        parts: &[Part],
        counts: &mut [usize; LIMITS_MAX],
    ) -> Result<(), Refusal> {
        for field in Fields::of(message) {
            let field = field?;
            let Some(part) = parts.iter().find(|part| part.number == field.number) else {
                continue;
            };
            if let Some((count, limit)) =
                part.limit.and_then(|limit| counts.get_mut(limit).zip(self.limits.get(limit)))
            {
                *count += 1;
                if *count > limit.most {
                    return Err(Refusal::TooMany { what: limit.what, most: limit.most });
                }
            }
            if let Value::Bytes(inside) = field.value
                && !part.inside.is_empty()
            {
                self.count(inside, part.inside, counts)?;
            }
        }
        Ok(())
    }
}

/// Their limits are among so many.
const fn are_of(parts: &[Part], limits: usize) -> bool {
    let mut index = 0;
    while index < parts.len() {
        let part = &parts[index];
        if let Some(limit) = part.limit
            && limit >= limits
        {
            return false;
        }
        if !are_of(part.inside, limits) {
            return false;
        }
        index += 1;
    }
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROOMS: usize = 0;
    const NAMES: usize = 1;
    static SHAPE: Shape = Shape::new(
        &[Limit { what: "rooms", most: 3 }, Limit { what: "names", most: 5 }],
        &[
            Part::list(1, ROOMS, &[Part::list(2, NAMES, &[])]),
            Part::one(3, &[Part::list(4, NAMES, &[])]),
        ],
    );

    fn field(number: u8, inside: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, u8::try_from(inside.len()).unwrap()][..], inside].concat()
    }

    #[test]
    fn what_repeats_is_counted_over_the_whole_message() {
        let name = field(2, b"");
        let room = field(1, &name.repeat(2));
        let fifth = field(3, &field(4, b"abc"));
        let within = [room.repeat(2), fifth.clone()].concat();
        assert_eq!(SHAPE.check(&within), Ok(()));
        let names = Refusal::TooMany { what: "names", most: 5 };
        assert_eq!(SHAPE.check(&[within.clone(), fifth].concat()), Err(names));
        assert_eq!(SHAPE.check(&room.repeat(3)), Err(names), "six, in three rooms");
        let rooms = Err(Refusal::TooMany { what: "rooms", most: 3 });
        assert_eq!(SHAPE.check(&field(1, b"").repeat(4)), rooms);
        // What is not named is as often as it likes.
        assert_eq!(SHAPE.check(&field(9, b"").repeat(100)), Ok(()));
        assert_eq!(names.to_string(), "it holds more than 5 names");
    }

    #[test]
    fn what_is_malformed_where_something_repeats_is_not_decoded() {
        let long = field(9, &[0; 20]);
        for bad in [&[0x0b][..], &field(1, &[0x08]), &field(3, &[0x22, 9])] {
            assert_eq!(SHAPE.check(&[&long, bad].concat()), Err(Refusal::Malformed), "{bad:x?}");
        }
        // Nothing repeats in there.
        assert_eq!(SHAPE.check(&[long, field(9, &[0xff; 3])].concat()), Ok(()));
        // Too short to hold too much.
        assert_eq!(SHAPE.check(&[0x0b]), Ok(()));
    }

    proptest! {
        #[test]
        fn no_message_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = SHAPE.check(&bytes);
        }
    }
}
