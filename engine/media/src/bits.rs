//! Bits of a header, most significant first.

/// Reads bits from a slice; `None` past its end.
#[derive(Debug, Clone)]
pub(crate) struct BitReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> BitReader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// One bit.
    pub(crate) fn flag(&mut self) -> Option<bool> {
        let byte = *self.bytes.get(self.at / 8)?;
        let bit = byte >> (7 - self.at % 8) & 1;
        self.at += 1;
        Some(bit == 1)
    }

    /// `count` bits, at most 32, as a number.
    pub(crate) fn take(&mut self, count: u32) -> Option<u32> {
        let mut value = 0;
        for _ in 0..count.min(32) {
            value = value << 1 | u32::from(self.flag()?);
        }
        Some(value)
    }

    /// Passes over `count` bits.
    pub(crate) fn skip(&mut self, count: u32) -> Option<()> {
        for _ in 0..count {
            self.flag()?;
        }
        Some(())
    }

    /// Exp-Golomb `ue(v)` (H.264 §9.1); the same code as AV1's `uvlc()` (§4.10.3).
    pub(crate) fn exp_golomb(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        Some((1 << zeros) - 1 + self.take(zeros)?)
    }

    /// A value below `n` in as few bits as it takes: `ns(n)` of the AV1 specifications.
    pub(crate) fn non_symmetric(&mut self, n: u32) -> Option<u32> {
        let width = 32 - n.leading_zeros();
        let short = (1 << width) - n;
        let value = self.take(width.saturating_sub(1))?;
        if value < short {
            return Some(value);
        }
        Some((value << 1) - short + self.take(1)?)
    }

    /// Bits read so far.
    #[cfg(test)]
    pub(crate) const fn position(&self) -> usize {
        self.at
    }
}

/// Writes bits, most significant first.
#[derive(Debug, Default)]
pub(crate) struct BitWriter {
    bytes: Vec<u8>,
    at: usize,
}

impl BitWriter {
    pub(crate) fn put(&mut self, value: u32, count: u32) {
        for bit in (0..count).rev() {
            if self.at.is_multiple_of(8) {
                self.bytes.push(0);
            }
            if value >> bit & 1 == 1
                && let Some(last) = self.bytes.last_mut()
            {
                *last |= 0x80 >> (self.at % 8);
            }
            self.at += 1;
        }
    }

    pub(crate) fn flag(&mut self, value: bool) {
        self.put(value.into(), 1);
    }

    /// The reverse of [`BitReader::non_symmetric`].
    pub(crate) fn non_symmetric(&mut self, value: u32, n: u32) {
        let width = 32 - n.leading_zeros();
        let short = (1 << width) - n;
        if value < short {
            self.put(value, width.saturating_sub(1));
        } else {
            self.put(value + short, width);
        }
    }

    /// What was written, the last byte filled up with zeros.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn exp_golomb_codes_are_the_tables() {
        // H.264 table 9-2.
        for (bits, value) in [(0x80, 0), (0x40, 1), (0x60, 2), (0x20, 3), (0x38, 6)] {
            assert_eq!(BitReader::new(&[bits]).exp_golomb(), Some(value));
        }
        assert_eq!(BitReader::new(&[0; 8]).exp_golomb(), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            values in proptest::collection::vec((any::<u32>(), 0..33_u32), 0..20),
            (n, small) in (1..300_u32).prop_flat_map(|n| (Just(n), 0..n)),
        ) {
            let mut writer = BitWriter::default();
            for &(value, count) in &values {
                writer.put(value, count);
            }
            writer.non_symmetric(small, n);
            let bytes = writer.into_bytes();
            let mut reader = BitReader::new(&bytes);
            for (value, count) in values {
                let kept = u64::from(value) & ((1 << count) - 1);
                prop_assert_eq!(reader.take(count).map(u64::from), Some(kept));
            }
            prop_assert_eq!(reader.non_symmetric(n), Some(small));
            prop_assert!(bytes.len() * 8 - reader.position() < 8);
        }
    }
}
