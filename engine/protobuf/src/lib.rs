//! Protobuf messages looked at, and bounded, before they are decoded (protobuf.dev, "Encoding").
//!
//! An empty element of a list has two bytes on the wire, and a decoder makes a struct of some hundred
//! of it: 16 MB of empty tracks take 3.8 GB. [`Shape::check`] counts what repeats while it still is
//! bytes. [`Fields`] is for who needs a little of a large message, in place.
//!
//! ```
//! use stampede_protobuf::{Limit, Part, Refusal, Shape};
//!
//! const TRACKS: usize = 0;
//! /// Field 1 holds a message, in which the tracks are field 4.
//! static ROOM: Shape = Shape::new(
//!     &[Limit { what: "tracks", most: 2 }],
//!     &[Part::one(1, &[Part::list(4, TRACKS, &[])])],
//! );
//! assert_eq!(ROOM.check(&[0x0a, 4, 0x22, 0, 0x22, 0]), Ok(()));
//! let three = [0x0a, 4, 0x22, 0, 0x22, 0, 0x0a, 2, 0x22, 0];
//! assert_eq!(ROOM.check(&three), Err(Refusal::TooMany { what: "tracks", most: 2 }));
//! ```

#![forbid(unsafe_code)]

mod shape;

pub use shape::{Limit, Part, Refusal, Shape};

/// It is no protobuf message, or holds a group, which no message of LiveKit's does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// A field's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// A number, of whatever width.
    Number(u64),
    /// Bytes, a text, a message or a packed list.
    Bytes(&'a [u8]),
}

/// A field of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// Its number, from 1.
    pub number: u32,
    /// Its value.
    pub value: Value<'a>,
    /// Number and value as they stand.
    pub whole: &'a [u8],
}

/// The fields of a message, in their order. It ends with `Err` where it can't be read.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Those of a message that is encoded so.
    #[must_use]
    #[inline]
    pub fn of(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    /// What was not read yet.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, Malformed>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = field(self.rest);
        self.rest = field.map_or(&[], |field| &self.rest[field.whole.len()..]);
        Some(field.ok_or(Malformed))
    }
}

/// The field that begins here.
#[inline]
fn field(bytes: &[u8]) -> Option<Field<'_>> {
    let (key, rest) = varint(bytes)?;
    let number = u32::try_from(key >> 3).ok().filter(|number| *number > 0)?;
    let (value, rest) = match key & 7 {
        0 => {
            let (value, rest) = varint(rest)?;
            (Value::Number(value), rest)
        }
        1 => {
            let (value, rest) = rest.split_first_chunk()?;
            (Value::Number(u64::from_le_bytes(*value)), rest)
        }
        2 => {
            let (len, rest) = varint(rest)?;
            let (value, rest) = rest.split_at_checked(usize::try_from(len).ok()?)?;
            (Value::Bytes(value), rest)
        }
        5 => {
            let (value, rest) = rest.split_first_chunk()?;
            (Value::Number(u32::from_le_bytes(*value).into()), rest)
        }
        _ => return None,
    };
    Some(Field { number, value, whole: &bytes[..bytes.len() - rest.len()] })
}

#[inline]
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0_u64;
    for (index, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[index + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fields_of_each_kind_are_read_with_their_bytes() {
        let message = [
            &[0x08, 0x96, 0x01][..],            // 1: 150
            &[0x11, 1, 0, 0, 0, 0, 0, 0, 0x80], // 2: of eight bytes
            &[0x1a, 2, 7, 8],                   // 3: two bytes
            &[0xa5, 0x06, 2, 1, 0, 0],          // 100: of four
            &[0xfa, 0xff, 0xff, 0xff, 0x0f, 0], // 2^29 - 1: none
        ];
        let bytes = message.concat();
        let read: Vec<_> = Fields::of(&bytes).map(Result::unwrap).collect();
        let values: Vec<_> = read.iter().map(|field| (field.number, field.value)).collect();
        let wanted = [
            (1, Value::Number(150)),
            (2, Value::Number(0x8000_0000_0000_0001)),
            (3, Value::Bytes(&[7, 8])),
            (100, Value::Number(0x0102)),
            ((1 << 29) - 1, Value::Bytes(&[])),
        ];
        assert_eq!(values, wanted);
        let parts: Vec<_> = read.iter().map(|field| field.whole).collect();
        assert_eq!(parts, message);
    }

    #[test]
    fn what_is_cut_too_long_or_of_another_kind_is_malformed_once() {
        for bad in [
            &[0x08][..],
            &[0x08, 0x80],
            &[0x0a, 2, 1],
            &[0x11, 1, 2, 3],
            &[0x15, 1, 2],
            &[0x00, 1], // number 0
            &[0x0b],    // a group
            &[0x0e, 0], // no kind
            &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], // 2^64 - 1 bytes
            &[0xff; 11],
        ] {
            assert_eq!(Fields::of(bad).collect::<Vec<_>>(), [Err(Malformed)], "{bad:x?}");
        }
    }

    proptest! {
        /// Whatever comes: the fields are the message, from its beginning, without a gap.
        #[test]
        fn fields_lie_one_behind_the_other(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut at = 0;
            let mut fields = Fields::of(&bytes);
            while let Some(Ok(field)) = fields.next() {
                prop_assert_eq!(field.whole, &bytes[at..at + field.whole.len()]);
                at += field.whole.len();
                prop_assert_eq!(fields.rest(), &bytes[at..]);
            }
        }
    }
}
