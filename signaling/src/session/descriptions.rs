//! What was negotiated last, for a sync state: a node to which the participant migrates has nothing
//! else to go by (livekit_rtc.proto `SyncState`). Of two connections it is the one to receive by
//! (client-sdk-js src/room/Room.ts, `sendSyncState`).
//!
//! Most are never asked for, and those of a room of a hundred tracks have a hundred kilobytes of lines
//! that repeat: they are packed once the negotiation has been quiet for a while.

use std::cell::RefCell;
use std::io::Read;

use flate2::read::DeflateDecoder;
use flate2::{Compress, Compression, FlushCompress, Status};

/// Shorter ones are not worth it.
const PACKED_FROM_BYTES: usize = 512;
/// A description has at least this many bytes for one of those packed.
const PACKED_PART: usize = 6;

thread_local! {
    /// Three hundred kilobytes, which would take longer to make for each participant than to use.
    static PACKER: RefCell<Compress> = RefCell::new(Compress::new(Compression::fast(), false));
}

#[derive(Debug, Default)]
pub(super) struct Descriptions {
    /// Of whoever offers, and of whoever answers; empty while they are packed.
    texts: [Box<str>; 2],
    packed: Option<Packed>,
    /// Since they were to be packed last.
    changed: bool,
}

/// Offer and answer as one deflated text.
#[derive(Debug)]
struct Packed {
    bytes: Box<[u8]>,
    /// Where the answer begins.
    offer_bytes: usize,
}

impl Packed {
    fn new(texts: &[Box<str>; 2]) -> Option<Self> {
        let both = texts.concat();
        let mut bytes = Vec::with_capacity(both.len() / PACKED_PART);
        PACKER.with_borrow_mut(|packer| {
            packer.reset();
            loop {
                let rest = &both.as_bytes()[packer.total_in() as usize..];
                bytes.reserve(1 + rest.len() / PACKED_PART);
                // Packing in memory does not fail; the plain texts are right all the same.
                match packer.compress_vec(rest, &mut bytes, FlushCompress::Finish).ok()? {
                    Status::StreamEnd => return Some(()),
                    Status::Ok | Status::BufError => {}
                }
            }
        })?;
        let bytes = bytes.into_boxed_slice();
        Some(Self { bytes, offer_bytes: texts[0].len() })
    }

    fn texts(&self) -> Option<[Box<str>; 2]> {
        let mut both = String::new();
        DeflateDecoder::new(&*self.bytes).read_to_string(&mut both).ok()?;
        let (offer, answer) = both.split_at_checked(self.offer_bytes)?;
        Some([offer.into(), answer.into()])
    }
}

impl Descriptions {
    pub(super) fn new(offer: String) -> Self {
        Self { texts: [offer.into(), Box::default()], packed: None, changed: false }
    }

    pub(super) fn set_offer(&mut self, sdp: &str) {
        self.unpack();
        self.texts[0] = sdp.into();
        self.changed = true;
    }

    pub(super) fn set_answer(&mut self, sdp: &str) {
        self.unpack();
        self.texts[1] = sdp.into();
        self.changed = true;
    }

    /// Offer and answer; empty where there was none.
    pub(super) fn get(&mut self) -> &[Box<str>; 2] {
        self.unpack();
        &self.texts
    }

    /// Some time has passed. They are packed if nothing was negotiated in it.
    pub(super) fn pack(&mut self) {
        if std::mem::take(&mut self.changed)
            || self.texts.iter().map(|text| text.len()).sum::<usize>() < PACKED_FROM_BYTES
        {
            return;
        }
        self.packed = Packed::new(&self.texts);
        if self.packed.is_some() {
            self.texts = Default::default();
        }
    }

    fn unpack(&mut self) {
        if let Some(packed) = self.packed.take() {
            self.texts = packed.texts().unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_packed_is_what_it_was() {
        let media = |mid: u32, ssrc: u32| {
            format!("m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\na=mid:{mid}\r\na=ssrc:{ssrc} cname:ä\r\n")
        };
        let sdp = |salt: u32| (0..100).map(|mid| media(mid, mid.wrapping_mul(salt))).collect();
        let (offer, answer): (String, String) = (sdp(0x9e37_79b9), sdp(7));
        let mut descriptions = Descriptions::new(String::new());
        descriptions.pack();
        assert!(descriptions.packed.is_none(), "nothing was negotiated");
        descriptions.set_offer(&offer);
        descriptions.set_answer(&answer);
        descriptions.pack();
        assert!(descriptions.packed.is_none(), "just negotiated");
        descriptions.pack();
        let packed = descriptions.packed.as_ref().map(|packed| packed.bytes.len());
        assert!(packed.is_some_and(|bytes| bytes * 6 < offer.len() + answer.len()), "{packed:?}");
        // Again, with nothing new.
        descriptions.pack();
        assert_eq!(descriptions.get().each_ref().map(|text| &**text), [&*offer, &*answer]);
        descriptions.pack();
        descriptions.set_offer("v=0\r\n");
        assert_eq!(descriptions.get().each_ref().map(|text| &**text), ["v=0\r\n", &*answer]);
    }
}
