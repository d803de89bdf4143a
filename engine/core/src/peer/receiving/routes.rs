//! Which stream an SSRC belongs to.

use super::ssrcs::SsrcTable;
use crate::accounting::Via;

/// Where an SSRC belongs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Route {
    pub(super) stream: u32,
    pub(super) via: Via,
}

impl Route {
    /// Of its stream.
    pub(super) fn index(self) -> usize {
        self.stream as usize
    }
}

/// Where each SSRC belongs that an offer named.
#[derive(Debug, Default)]
pub(super) struct Routes(SsrcTable);

impl Routes {
    pub(super) fn get(&self, ssrc: u32) -> Option<Route> {
        let packed = self.0.get(ssrc)?;
        let via = if packed & 1 == 0 { Via::Primary } else { Via::Rtx };
        Some(Route { stream: (packed >> 1) as u32, via })
    }
}

/// From the primary SSRC and that of RTX of each stream, in their order.
impl FromIterator<(u32, Option<u32>)> for Routes {
    fn from_iter<I: IntoIterator<Item = (u32, Option<u32>)>>(streams: I) -> Self {
        let mut table = SsrcTable::default();
        for (index, (ssrc, rtx)) in streams.into_iter().enumerate() {
            table.insert(ssrc, index << 1);
            if let Some(rtx) = rtx {
                table.insert(rtx, index << 1 | 1);
            }
        }
        Self(table)
    }
}
