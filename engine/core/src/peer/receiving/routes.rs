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

/// From the primary SSRC and that of RTX of each stream, in their order. An SSRC that is both, by a
/// description that is wrong, is the primary one.
impl FromIterator<(u32, Option<u32>)> for Routes {
    fn from_iter<I: IntoIterator<Item = (u32, Option<u32>)>>(streams: I) -> Self {
        let streams: Vec<_> = streams.into_iter().collect();
        let rtx = streams.iter().enumerate();
        let rtx = rtx.filter_map(|(index, (_, rtx))| Some(((*rtx)?, index << 1 | 1)));
        let primary = streams.iter().enumerate().map(|(index, (ssrc, _))| (*ssrc, index << 1));
        Self(rtx.chain(primary).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_primary_and_rtx_is_primary() {
        for streams in [[(1, Some(2)), (2, Some(3))], [(2, Some(3)), (1, Some(2))]] {
            let routes: Routes = streams.into_iter().collect();
            let via = |ssrc| routes.get(ssrc).map(|route| (streams[route.index()].0, route.via));
            assert_eq!(via(2), Some((2, Via::Primary)));
            assert_eq!(via(3), Some((2, Via::Rtx)));
            assert_eq!(via(4), None);
        }
    }
}
