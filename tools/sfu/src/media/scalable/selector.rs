//! Which packets of a stream of several layers one subscriber gets: the layer frames of one decode
//! target, which changes where everything that the new one needs was sent.

use super::frame::{LayerFrame, REACH};
use super::thin::Thinner;
use crate::media::layers::Layer;

/// What one subscriber gets of one source.
#[derive(Debug)]
pub(crate) struct Selector {
    /// The decode target that it gets, and its layer; none before the first keyframe.
    current: Option<(u32, Layer)>,
    /// Number of the newest layer frame.
    newest: Option<u16>,
    /// RTP timestamp of its picture.
    picture: Option<u32>,
    /// Something of that picture was sent.
    begun: bool,
    /// And its last packet, behind which nothing of it is.
    ended: bool,
    /// Which layer frames were sent: bit `n` is the one `n` before the newest.
    sent: u64,
    /// Decode targets of which nothing was left out since the last keyframe, a bit each.
    whole: u32,
    thinner: Thinner,
}

/// A packet that passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chosen {
    /// Its number in the thinned stream.
    pub(crate) seq: u64,
    /// It is the last of its picture.
    pub(crate) marker: bool,
}

impl Selector {
    /// Of packets from this one on, which begins a keyframe.
    pub(crate) fn new(first_seq: u64) -> Self {
        let thinner = Thinner::new(first_seq);
        Self {
            current: None,
            newest: None,
            picture: None,
            begun: false,
            ended: false,
            sent: 0,
            whole: 0,
            thinner,
        }
    }

    /// The layer it gets.
    pub(crate) fn layer(&self) -> Option<Layer> {
        self.current.map(|(_, layer)| layer)
    }

    /// Whether it takes a keyframe to get what is wanted: a picture of another size, some part of
    /// which was left out.
    pub(crate) fn wants_keyframe(&self, frame: &LayerFrame, wanted: Layer) -> bool {
        let target = best(&frame.targets, wanted);
        match (self.current, target) {
            (Some((_, current)), Some((bit, layer))) => {
                current.spatial != layer.spatial && self.whole & bit == 0
            }
            (current, _) => current.is_none(),
        }
    }

    /// Takes the packet of this number, RTP timestamp and marker. What it is to the subscriber if it
    /// passes.
    pub(crate) fn take(
        &mut self,
        frame: &LayerFrame,
        (seq, timestamp, marker): (u64, u32, bool),
        wanted: Layer,
    ) -> Option<Chosen> {
        let goes = self.passes(frame, (seq, timestamp), wanted);
        let ends = frame.ends && self.layer().is_some_and(|l| l.spatial == frame.layer.spatial);
        let marker = marker || ends;
        let seq = self.thinner.take(seq, goes.then_some(marker))?;
        self.ended |= marker && self.picture == Some(timestamp);
        Some(Chosen { seq, marker })
    }

    /// Leaves out the packet of this number, of which nothing more is known.
    pub(crate) fn leave_out(&mut self, seq: u64) {
        self.thinner.take(seq, None);
    }

    /// What was sent under a number of the thinned stream: the publisher's, and the marker.
    pub(crate) fn origin(&self, seq: u64) -> Option<(u64, bool)> {
        self.thinner.origin(seq)
    }

    /// Whether packets of this frame pass, of which this one has this number and RTP timestamp.
    fn passes(&mut self, frame: &LayerFrame, (seq, timestamp): (u64, u32), wanted: Layer) -> bool {
        let ahead = self.newest.map_or(1, |newest| frame.number.wrapping_sub(newest).cast_signed());
        // The publisher may count anew.
        let restarts =
            frame.begins_keyframe() && ahead.unsigned_abs() >= REACH && self.thinner.is_newest(seq);
        if ahead <= 0 && !restarts {
            let behind = u32::from(ahead.unsigned_abs());
            return self.sent.checked_shr(behind).unwrap_or(0) & 1 == 1;
        }
        self.sent = self.sent.checked_shl(u32::from(ahead.unsigned_abs())).unwrap_or(0);
        self.newest = Some(frame.number);
        if self.picture.replace(timestamp) != Some(timestamp) {
            (self.begun, self.ended) = (false, false);
        }
        if self.ended {
            self.whole &= !frame.present;
            return false;
        }
        if frame.begins_keyframe() {
            (self.whole, self.sent) = (u32::MAX, 0);
            self.current = best(&frame.targets, wanted);
        } else if frame.starts
            && !self.begun
            && let Some((bit, layer)) = best(&frame.targets, wanted)
            && self.layer() != Some(layer)
            && self.can_begin(frame, bit)
        {
            self.current = Some((bit, layer));
        }
        let goes = self.current.is_some_and(|(bit, _)| frame.present & bit != 0);
        if goes {
            self.sent |= 1;
            self.begun = true;
        } else {
            self.whole &= !frame.present;
        }
        goes
    }

    /// Whether the subscriber can go on with this decode target at this frame, before which nothing of
    /// its picture was sent.
    fn can_begin(&self, frame: &LayerFrame, bit: u32) -> bool {
        if self.whole & bit != 0 {
            return true;
        }
        // The newest frame is this one, so the one before it is bit 1.
        let has = frame.needs.is_some_and(|needs| needs & !(self.sent >> 1) == 0);
        const { assert!(REACH as u32 == u64::BITS) };
        frame.present & frame.switch & bit != 0 && has
    }
}

/// The highest decode target within a layer, or the lowest one: its bit and layer.
fn best(targets: &[Layer], wanted: Layer) -> Option<(u32, Layer)> {
    let all = targets.iter().enumerate().map(|(at, layer)| (1u32 << at, *layer));
    let within = all.clone().filter(|(_, layer)| *layer <= wanted).max_by_key(|(_, layer)| *layer);
    within.or_else(|| all.min_by_key(|(_, layer)| *layer))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use stampede_media::{Codec, ScalabilityMode, builtin};

    use super::*;
    use crate::media::scalable::frame::Descriptors;

    /// A packet of a publisher.
    struct Packet {
        seq: u64,
        frame: Arc<LayerFrame>,
        marker: bool,
        /// Its picture since the beginning.
        picture: usize,
    }

    /// Packets of the built-in clip, over and over.
    fn published(mode: ScalabilityMode, pictures: usize) -> Vec<Packet> {
        let clip = builtin::scalable_video(Codec::Vp9, mode).unwrap().unwrap();
        let layers = clip.scalability.as_ref().unwrap();
        let (mut descriptors, mut packets) = (Descriptors::default(), Vec::new());
        let mut number = 65_500u16;
        for picture in 0..pictures {
            let at = picture % clip.frames.len();
            let count = clip.frames[at].packets.len();
            let mut frames = 0;
            for packet in 0..count {
                let value = layers.descriptor(at, packet, number).unwrap();
                let frame = descriptors.read(&value).unwrap();
                frames += u16::from(frame.starts);
                let marker = packet + 1 == count;
                packets.push(Packet { seq: packets.len() as u64, frame, marker, picture });
            }
            number = number.wrapping_add(frames);
        }
        packets
    }

    #[derive(Default)]
    struct Seen {
        /// Picture, layer.
        frames: Vec<(usize, Layer)>,
        seqs: Vec<u64>,
        markers: usize,
        sent: Vec<u16>,
    }

    /// What a subscriber gets of it that wants this layer at each picture, checked: it can decode
    /// every frame, and each picture ends.
    fn watched(packets: &[Packet], wanted: impl Fn(usize) -> Layer) -> Seen {
        watched_by_packet(packets, |packet| wanted(packet.picture))
    }

    /// The same of one that may want another at each packet.
    fn watched_by_packet(packets: &[Packet], wanted: impl Fn(&Packet) -> Layer) -> Seen {
        let (mut selector, mut seen) = (Selector::new(0), Seen::default());
        let mut last_marker: Option<usize> = None;
        for packet in packets {
            let taken = (packet.seq, 3_600 * packet.picture as u32, packet.marker);
            let Some(chosen) = selector.take(&packet.frame, taken, wanted(packet)) else {
                continue;
            };
            let frame = &packet.frame;
            if frame.starts {
                let needs = frame.needs.unwrap();
                for diff in (0..64).filter(|bit| needs >> bit & 1 == 1).map(|bit| bit as u16 + 1) {
                    let needed = frame.number.wrapping_sub(diff);
                    assert!(seen.sent.contains(&needed), "picture {} lacks one", packet.picture);
                }
                seen.sent.push(frame.number);
                seen.frames.push((packet.picture, frame.layer));
            }
            assert_ne!(last_marker, Some(packet.picture), "a packet behind the last");
            if chosen.marker {
                last_marker = Some(packet.picture);
                seen.markers += 1;
            }
            seen.seqs.push(chosen.seq);
            assert_eq!(selector.origin(chosen.seq), Some((packet.seq, chosen.marker)));
        }
        let pictures: std::collections::BTreeSet<_> =
            seen.frames.iter().map(|(picture, _)| picture).collect();
        assert_eq!(seen.markers, pictures.len(), "each picture ends");
        assert!(seen.seqs.windows(2).all(|two| two[1] == two[0] + 1), "{:?}", seen.seqs);
        seen
    }

    fn top(seen: &Seen, picture: usize) -> Option<Layer> {
        let of = seen.frames.iter().filter(|(at, _)| *at == picture);
        of.map(|(_, layer)| *layer).max()
    }

    #[test]
    fn one_size_of_three_is_sent_alone_between_keyframes() {
        let packets = published(ScalabilityMode::L3T3Key, 30);
        for spatial in 0..3 {
            let seen = watched(&packets, |_| Layer::spatial(spatial));
            // All up to it in the keyframe, and then it alone.
            assert_eq!(seen.frames.len(), usize::from(spatial) + 30);
            assert!((0..30).all(|at| top(&seen, at).unwrap().spatial == spatial));
        }
        let all = watched(&packets, |_| Layer::spatial(2));
        let wanted = packets.iter().filter(|p| p.frame.layer.spatial == 2 || p.picture == 0);
        assert_eq!(all.seqs.len(), wanted.count());
    }

    #[test]
    fn another_size_waits_for_a_keyframe_and_rates_change_at_once() {
        let packets = published(ScalabilityMode::L3T3Key, 160);
        let keys: Vec<_> = packets.iter().filter(|p| p.frame.key).map(|p| p.picture).collect();
        let first = keys.iter().copied().find(|key| *key >= 40).unwrap();
        let later = first + 20;
        let wanted = |picture| match picture {
            0..40 => Layer::spatial(2),
            at if at < later => Layer { spatial: 0, temporal: 0 },
            _ => Layer { spatial: 0, temporal: 1 },
        };
        let seen = watched(&packets, wanted);
        assert!((0..first).all(|at| top(&seen, at).unwrap().spatial == 2));
        for at in first..160 {
            // Since a keyframe: 0, 2, 1, 2 over and over.
            let key = keys.iter().copied().filter(|key| *key <= at).max().unwrap();
            let temporal = [0, 2, 1, 2][(at - key) % 4];
            let passes = temporal == 0 || (temporal == 1 && at >= later);
            assert_eq!(top(&seen, at).is_some(), passes, "picture {at}");
        }
    }

    #[test]
    fn temporal_layers_alone_need_no_keyframe() {
        let packets = published(ScalabilityMode::L1T3, 90);
        let rate = |temporal| Layer { spatial: 0, temporal };
        let wanted = |picture| rate([2, 0, 1, 2][picture / 25]);
        let seen = watched(&packets, wanted);
        let count =
            |from: usize, to: usize| (from..to).filter(|at| top(&seen, *at).is_some()).count();
        assert_eq!((count(0, 24), count(28, 48), count(52, 72), count(80, 90)), (24, 5, 10, 10));
    }

    #[test]
    fn a_keyframe_is_asked_for_only_where_it_helps() {
        let packets = published(ScalabilityMode::L3T3Key, 4);
        let mut selector = Selector::new(0);
        let first = &packets[0].frame;
        assert!(selector.wants_keyframe(first, Layer::spatial(0)));
        for packet in &packets {
            let taken = (packet.seq, packet.picture as u32, packet.marker);
            selector.take(&packet.frame, taken, Layer::spatial(1));
        }
        assert!(selector.wants_keyframe(first, Layer::spatial(0)));
        assert!(selector.wants_keyframe(first, Layer::spatial(2)));
        assert!(!selector.wants_keyframe(first, Layer::spatial(1)));
        assert!(!selector.wants_keyframe(first, Layer { spatial: 1, temporal: 0 }));
    }

    #[test]
    fn a_picture_that_has_ended_ends_once() {
        // Each frame of the keyframe says how it is laid out, and that nothing is needed for it.
        let packets = published(ScalabilityMode::L3T3Key, 1);
        let mut selector = Selector::new(0);
        let mut ends = Vec::new();
        for packet in &packets {
            let frame = LayerFrame { key: true, ..(*packet.frame).clone() };
            let wanted = Layer::spatial(frame.layer.spatial);
            let taken = (packet.seq, 0, packet.marker);
            let chosen = selector.take(&frame, taken, wanted);
            ends.extend(chosen.filter(|chosen| chosen.marker).map(|_| frame.layer.spatial));
        }
        assert_eq!(ends, [0]);
    }

    #[test]
    fn a_publisher_that_counts_its_frames_anew_is_heard_from_its_keyframe_on() {
        let mut packets = published(ScalabilityMode::L1T3, 30);
        let count = packets.len();
        let again = published(ScalabilityMode::L1T3, 30);
        packets.extend(again.into_iter().map(|packet| {
            let number = packet.frame.number.wrapping_sub(1_000);
            let frame = Arc::new(LayerFrame { number, ..(*packet.frame).clone() });
            let (seq, picture) = (packet.seq + count as u64, packet.picture + 30);
            Packet { seq, frame, picture, ..packet }
        }));
        let seen = watched(&packets, |_| Layer::spatial(0));
        assert_eq!(seen.seqs.len(), 2 * count);
        // The first packet, come once more, is no new beginning.
        let mut selector = Selector::new(0);
        let all = Layer::spatial(0);
        let take = |selector: &mut Selector, packet: &Packet| {
            let taken = (packet.seq, packet.picture as u32, packet.marker);
            selector.take(&packet.frame, taken, all)
        };
        let late = published(ScalabilityMode::L1T3, 90);
        for packet in &late[..late.len() - 1] {
            assert!(take(&mut selector, packet).is_some());
        }
        assert_eq!(take(&mut selector, &late[0]), None);
        assert!(take(&mut selector, &late[late.len() - 1]).is_some());
    }

    proptest! {
        /// Whatever is wanted when, all that is sent can be decoded and is whole.
        #[test]
        fn any_wishes_give_decodable_pictures(
            wishes in proptest::collection::vec((0u8..3, 0u8..3), 1..40),
            every in 1usize..12,
            key: bool,
        ) {
            let mode = if key { ScalabilityMode::L3T3Key } else { ScalabilityMode::L1T3 };
            let packets = published(mode, 130);
            watched_by_packet(&packets, |packet| {
                let (spatial, temporal) = wishes[packet.seq as usize / every % wishes.len()];
                Layer { spatial, temporal }
            });
        }
    }
}
