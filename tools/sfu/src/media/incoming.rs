//! What a worker knows of a publisher's m-lines and SSRCs.

use rustc_hash::{FxHashMap, FxHashSet};
use stampede_core::RtpHeader;
use stampede_core::srtp::{KeySlot, RtpOpener};
use str0m::media::Mid;

/// SSRCs of one publisher at most; packets of further ones are ignored, and counted
/// ([`media_ignored`](stampede_counters::SfuWorkerCounters::media_ignored)). Three layers of a few
/// republished tracks are far below it.
const PUBLISHER_SSRCS_MAX: usize = 512;

/// SSRCs of which packets are looked at, retransmissions and what belongs to no track included: str0m
/// keeps something of each.
const AUTHENTIC_SSRCS_MAX: usize = 2 * PUBLISHER_SSRCS_MAX;

/// Where the packets of an SSRC go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamPlace {
    /// Index of the track on this worker.
    pub(crate) track: usize,
    /// Index of the numbering in the track's source.
    pub(crate) stream: usize,
}

/// A publisher's m-lines and SSRCs.
pub(crate) struct Incoming {
    /// Where its SRTP keys are found.
    keys: KeySlot,
    /// What opens its media, once there was any.
    opener: Option<Box<RtpOpener>>,
    /// SSRCs of which a packet was authentic, retransmissions' too.
    authentic: FxHashSet<u32>,
    mids: Vec<(Mid, usize)>,
    /// `None` for an SSRC that belongs to no track.
    places: FxHashMap<u32, Option<StreamPlace>>,
}

impl Incoming {
    /// Of who sends with the keys that will be found there.
    pub(crate) fn new(keys: KeySlot) -> Self {
        let (opener, authentic, mids, places) = Default::default();
        Self { keys, opener, authentic, mids, places }
    }

    /// Whether an RTP packet is of an SSRC of the client's. str0m binds an m-line to whatever SSRC names
    /// it, before it looks whether the packet is authentic, and stays with that: anybody who can write the
    /// client's address into a datagram could take its streams from it.
    pub(crate) fn admits(&mut self, datagram: &[u8]) -> bool {
        let Some(header) = RtpHeader::parse(datagram) else { return false };
        if self.authentic.contains(&header.ssrc) {
            return true;
        }
        if self.authentic.len() >= AUTHENTIC_SSRCS_MAX {
            return false;
        }
        if self.opener.is_none() {
            let opener = self.keys.get().and_then(|keying| keying.rtp_opener().ok());
            self.opener = opener.map(Box::new);
        }
        let RtpHeader { ssrc, sequence, header_bytes, .. } = header;
        // Of an SSRC that str0m does not know it takes the number for one of the first 65,536, too.
        let opened = self.opener.as_ref().is_some_and(|opener| {
            opener.open(datagram, header_bytes, ssrc, sequence.into(), &mut Vec::new()).is_some()
        });
        if opened {
            self.authentic.insert(ssrc);
        }
        opened
    }

    /// An m-line carries this track from now on.
    pub(crate) fn bind(&mut self, mid: Mid, track: usize) {
        self.mids.retain(|(known, _)| *known != mid);
        self.mids.push((mid, track));
    }

    /// The track of an m-line.
    pub(crate) fn track_of(&self, mid: Mid) -> Option<usize> {
        self.mids.iter().find(|(known, _)| *known == mid).map(|(_, track)| *track)
    }

    /// A track is over. What belonged to no track is looked at anew.
    pub(crate) fn unbind(&mut self, track: usize) {
        self.mids.retain(|(_, known)| *known != track);
        self.places.retain(|_, place| place.is_some_and(|place| place.track != track));
    }

    /// Where the packets of an SSRC go, if that was found out.
    pub(crate) fn place(&self, ssrc: u32) -> Option<Option<StreamPlace>> {
        self.places.get(&ssrc).copied()
    }

    /// Whether no further SSRC is looked at.
    pub(crate) fn is_full(&self) -> bool {
        self.places.len() >= PUBLISHER_SSRCS_MAX
    }

    /// The packets of an SSRC go there, or nowhere.
    pub(crate) fn learn(&mut self, ssrc: u32, place: Option<StreamPlace>) {
        self.places.insert(ssrc, place);
    }
}

#[cfg(test)]
mod tests;
