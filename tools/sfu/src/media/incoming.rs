//! What a worker knows of a publisher's m-lines and SSRCs.

use rustc_hash::FxHashMap;
use str0m::media::Mid;

/// SSRCs of one publisher at most; packets of further ones are ignored. Three layers of a few
/// republished tracks are far below it.
const PUBLISHER_SSRCS_MAX: usize = 512;

/// Where the packets of an SSRC go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamPlace {
    /// Index of the track on this worker.
    pub(crate) track: usize,
    /// Index of the numbering in the track's source.
    pub(crate) stream: usize,
}

/// A publisher's m-lines and SSRCs.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    mids: Vec<(Mid, usize)>,
    /// `None` for an SSRC that belongs to no track.
    places: FxHashMap<u32, Option<StreamPlace>>,
}

impl Incoming {
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
