//! Where the SSRC of a packet is found.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

/// The odd multiplier of the hash, another one in each process: a server that could know it could name
/// SSRCs that all fall into one cell (multiply-shift hashing of Dietzfelbinger et al.).
static MULTIPLIER: LazyLock<u32> = LazyLock::new(|| RandomState::new().hash_one(0) as u32 | 1);
/// In place of an index: the cell is free.
const FREE: u32 = u32::MAX;
/// Cells that a table begins with, as many as fit into a cache line.
const CELLS_MIN: usize = 8;

#[derive(Debug, Clone, Copy)]
struct Cell {
    ssrc: u32,
    index: u32,
}

/// Indices by SSRC: a table at most half full, in which an SSRC mostly lies in the first cell that is
/// looked at. It is on the way of every packet, and a general map takes several cache lines and a hash
/// for keys of any length there. What is taken out is left out when it is filled anew.
#[derive(Debug)]
pub(super) struct SsrcTable {
    /// A power of two of them.
    cells: Vec<Cell>,
    len: usize,
    multiplier: u32,
}

impl Default for SsrcTable {
    fn default() -> Self {
        Self::with_multiplier(*MULTIPLIER)
    }
}

impl SsrcTable {
    fn with_multiplier(multiplier: u32) -> Self {
        Self { cells: vec![Cell { ssrc: 0, index: FREE }; CELLS_MIN], len: 0, multiplier }
    }

    /// The index of this SSRC.
    #[inline]
    pub(super) fn get(&self, ssrc: u32) -> Option<usize> {
        let mut at = self.first_cell(ssrc);
        loop {
            let cell = self.cells[at];
            if cell.index == FREE {
                return None;
            }
            if cell.ssrc == ssrc {
                return Some(cell.index as usize);
            }
            at = (at + 1) & (self.cells.len() - 1);
        }
    }

    /// Enters an SSRC; one that is there gets this index.
    pub(super) fn insert(&mut self, ssrc: u32, index: usize) {
        if (self.len + 1) * 2 > self.cells.len() {
            let free = vec![Cell { ssrc: 0, index: FREE }; self.cells.len() * 2];
            let full = std::mem::replace(&mut self.cells, free);
            self.len = 0;
            let taken = full.iter().filter(|cell| cell.index != FREE);
            taken.for_each(|cell| self.place(*cell));
        }
        self.place(Cell { ssrc, index: index as u32 });
    }

    fn place(&mut self, new: Cell) {
        let mut at = self.first_cell(new.ssrc);
        loop {
            let cell = self.cells[at];
            if cell.index == FREE || cell.ssrc == new.ssrc {
                self.len += usize::from(cell.index == FREE);
                self.cells[at] = new;
                return;
            }
            at = (at + 1) & (self.cells.len() - 1);
        }
    }

    fn first_cell(&self, ssrc: u32) -> usize {
        // The high bits are the well mixed ones: as many as there are bits in a place.
        let bits = self.cells.len().trailing_zeros();
        (ssrc.wrapping_mul(self.multiplier) >> (u32::BITS - bits)) as usize
    }
}

impl FromIterator<(u32, usize)> for SsrcTable {
    fn from_iter<I: IntoIterator<Item = (u32, usize)>>(all: I) -> Self {
        let mut table = Self::default();
        all.into_iter().for_each(|(ssrc, index)| table.insert(ssrc, index));
        table
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_ssrc_is_found_and_no_other(
            ssrcs in prop::collection::hash_set(prop_oneof![any::<u32>(), 0_u32..64], 0..600),
            others in prop::collection::vec(any::<u32>(), 100),
        ) {
            let mut table: SsrcTable = ssrcs.iter().map(|&ssrc| (ssrc, 7)).collect();
            for (index, ssrc) in ssrcs.iter().enumerate() {
                table.insert(*ssrc, index);
            }
            prop_assert_eq!(table.len, ssrcs.len());
            for (index, ssrc) in ssrcs.iter().enumerate() {
                prop_assert_eq!(table.get(*ssrc), Some(index));
            }
            for other in others.iter().filter(|other| !ssrcs.contains(other)) {
                prop_assert_eq!(table.get(*other), None);
            }
        }
    }

    /// LiveKit draws them at random, others count up, in whichever of their bytes.
    #[test]
    fn neighbours_are_found_at_once() {
        for shift in [0, 8, 16, 24] {
            // Knuth's golden ratio, so that this does not change from run to run.
            let mut table = SsrcTable::with_multiplier(0x9e37_79b9);
            let ssrcs: Vec<u32> = (0..240_u32).map(|count| 5 + (count << shift)).collect();
            ssrcs.iter().enumerate().for_each(|(index, ssrc)| table.insert(*ssrc, index));
            let probes = |ssrc: &u32| {
                let first = table.first_cell(*ssrc);
                let mask = table.cells.len() - 1;
                let at = (0..).find(|step| table.cells[(first + step) & mask].ssrc == *ssrc);
                at.unwrap() + 1
            };
            let sum: usize = ssrcs.iter().map(probes).sum();
            assert!(sum < 3 * 240, "{shift}: {sum}");
        }
    }
}
