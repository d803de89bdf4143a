//! An input, read piece by piece. What it does not have is zero, so that every input means something.

/// What is left of an input.
pub(crate) struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    pub(crate) fn of(input: &'a [u8]) -> Self {
        Self(input)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let taken = self.take(N);
        array[..taken.len()].copy_from_slice(taken);
        array
    }

    pub(crate) fn u8(&mut self) -> u8 {
        u8::from_le_bytes(self.array())
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    /// One of so many.
    pub(crate) fn below(&mut self, count: u8) -> u8 {
        self.u8() % count.max(1)
    }

    /// So many bytes, as far as there are.
    pub(crate) fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// A piece that says how long it is, in two bytes.
    pub(crate) fn piece(&mut self) -> &'a [u8] {
        let count = self.u16();
        self.take(count.into())
    }

    /// A piece that says how long it is, in one byte.
    pub(crate) fn short(&mut self) -> &'a [u8] {
        let count = self.u8();
        self.take(count.into())
    }

    /// All that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}

/// An input that [`Bytes::piece`] reads, of these.
pub(crate) fn pieces<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut input = Vec::new();
    for piece in pieces {
        let count = piece.len().min(usize::from(u16::MAX));
        input.extend((count as u16).to_le_bytes());
        input.extend(&piece[..count]);
    }
    input
}
