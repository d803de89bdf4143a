//! Which packets of its track a subscriber gets, and by which numbers.

use super::Subscription;
use crate::media::layers::{Cap, Layer};
use crate::media::packet::MediaPacket;
use crate::media::rewrite::{Numbers, Rewritten};
use crate::media::scalable::frame::LayerFrame;
use crate::media::scalable::selector::Selector;

impl Subscription {
    /// The numbers and the marker of a packet, if the subscriber is to get it.
    pub(super) fn number(&mut self, packet: &MediaPacket, wanted: u8) -> Option<(Rewritten, bool)> {
        if let Some(frame) = &packet.frame {
            return self.rewrite_scalable(packet, frame, wanted);
        }
        let mut wanted = wanted;
        if self.rewriter.source() == Some(packet.numbers.source)
            && let Some(selector) = &mut self.selector
        {
            // Of which layer it is can't be told; numbered as if nothing had been left out before, it
            // would jump ahead of the others, which would use its number again.
            if !packet.starts_keyframe {
                selector.leave_out(packet.numbers.seq);
                return None;
            }
            // There are layers no longer. What is sent from here on is numbered anew.
            self.stop();
            wanted = packet.layer;
        }
        self.rewrite(packet, wanted).map(|numbers| (numbers, packet.marker))
    }

    /// The simulcast layer of which it takes a keyframe to send what is wanted, where this packet is the
    /// latest.
    pub(super) fn needs_keyframe(&self, packet: &MediaPacket, wanted: u8) -> Option<u8> {
        let selector = self.selector.as_ref();
        let Some(frame) = &packet.frame else {
            if self.rewriter.source() == Some(packet.numbers.source) && selector.is_some() {
                return Some(packet.layer);
            }
            return (self.layer != Some(wanted)).then_some(wanted);
        };
        let wanted = self.wanted_layer(wanted);
        selector.is_none_or(|selector| selector.wants_keyframe(frame, wanted)).then_some(0)
    }

    /// Of a source of several layers, where this spatial one is to be sent.
    fn wanted_layer(&self, spatial: u8) -> Layer {
        let fits = match self.cap {
            Cap::Upto(layer) if layer.spatial == spatial => layer.temporal,
            _ => u8::MAX,
        };
        Layer { spatial, temporal: fits.min(self.temporal) }
    }

    /// The numbers of a packet that the subscriber is to get, after switching to its source if
    /// that is the wanted layer and it starts a keyframe.
    fn rewrite(&mut self, packet: &MediaPacket, wanted: u8) -> Option<Rewritten> {
        let before = self.rewriter.source();
        self.follow(packet, wanted)?;
        if before != self.rewriter.source() {
            self.selector = None;
        }
        self.rewriter.rewrite(&packet.numbers)
    }

    /// The same, with the marker, of a packet of a source of several layers, if it is of those that
    /// the subscriber is to get.
    fn rewrite_scalable(
        &mut self,
        packet: &MediaPacket,
        frame: &LayerFrame,
        wanted: u8,
    ) -> Option<(Rewritten, bool)> {
        let before = self.rewriter.source();
        self.follow(packet, packet.layer)?;
        if before != self.rewriter.source() || self.selector.is_none() {
            self.selector = Some(Box::new(Selector::new(packet.numbers.seq)));
        }
        let wanted = self.wanted_layer(wanted);
        let selector = self.selector.as_mut()?;
        let former = selector.layer();
        let taken = (packet.numbers.seq, packet.numbers.timestamp, packet.marker);
        let chosen = selector.take(frame, taken, wanted);
        let switched = selector.layer().zip(former).is_some_and(|(l, f)| l.spatial != f.spatial);
        self.ledger.counts.layer_switches += u64::from(switched);
        let chosen = chosen?;
        let numbers = Numbers { seq: chosen.seq, ..packet.numbers };
        Some((self.rewriter.rewrite(&numbers)?, chosen.marker))
    }

    /// Lets the packet's source pass, if it is that of the wanted layer and the packet starts a
    /// keyframe. `None` if another one passes.
    fn follow(&mut self, packet: &MediaPacket, wanted: u8) -> Option<()> {
        let current = self.rewriter.source();
        if current != Some(packet.numbers.source) {
            // Of two sources of the same layer the later one counts: the publisher changed its
            // SSRC.
            let outdated = self.layer == Some(packet.layer)
                && current.is_some_and(|current| current > packet.numbers.source);
            if wanted != packet.layer || !packet.starts_keyframe || outdated {
                return None;
            }
            self.rewriter.switch(&packet.numbers, self.clock_rate);
            if self.layer.is_some_and(|layer| layer != packet.layer) {
                self.ledger.counts.layer_switches += 1;
            }
            self.layer = Some(packet.layer);
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may panic")]

    use std::time::{Duration, Instant};

    use stampede_core::MediaKind;
    use stampede_media::{Codec, ScalabilityMode, builtin};

    use super::super::Negotiation;
    use super::*;
    use crate::media::connection::codecs;
    use crate::media::message::{Role, TrackKey, TrackOffer, Wanted};
    use crate::media::packet::Extensions;
    use crate::media::rewrite::Vp8Numbers;
    use crate::media::scalable::frame::Descriptors;
    use crate::media::track::Track;

    fn subscription() -> Subscription {
        let offer = TrackOffer {
            track: TrackKey(1),
            sid: "TR_1".into(),
            publisher_sid: "PA_1".into(),
            kind: MediaKind::Video,
            home: 0,
            wanted: Wanted { limit: 2, pictures_per_s: 0, paused: false },
            choice: false,
        };
        let mut subscription = Subscription::new(0, "room".into(), offer, 100, 1);
        subscription.clock_rate = 90_000;
        subscription
    }

    /// The built-in clip of three sizes, so many pictures of it.
    fn published(pictures: usize) -> Vec<MediaPacket> {
        let clip = builtin::scalable_video(Codec::Vp9, ScalabilityMode::L3T3Key).unwrap().unwrap();
        let layers = clip.scalability.as_ref().unwrap();
        let (mut descriptors, mut number, mut packets) = (Descriptors::default(), 0u16, Vec::new());
        for picture in 0..pictures {
            let count = clip.frames[picture].packets.len();
            let mut started = 0;
            for packet in 0..count {
                let value = layers.descriptor(picture, packet, number).unwrap();
                let frame = descriptors.read(&value).unwrap();
                started += u16::from(frame.starts);
                packets.push(MediaPacket {
                    layer: 0,
                    numbers: Numbers {
                        source: 7,
                        seq: 5_000 + packets.len() as u64,
                        timestamp: 3_600 * picture as u32,
                        vp8: Vp8Numbers::default(),
                        captured_at_unix_us: None,
                        arrived_at: Instant::now(),
                    },
                    marker: packet + 1 == count,
                    starts_keyframe: picture == 0 && packet == 0,
                    extensions: Extensions::default(),
                    payload: [0u8; 4].as_slice().into(),
                    primary_at: None,
                    frame: Some(frame),
                });
            }
            number = number.wrapping_add(started);
        }
        packets
    }

    /// Numbers of what a subscriber gets who wants the lowest layer.
    fn sent(subscription: &mut Subscription, packets: &[MediaPacket]) -> Vec<u64> {
        let numbers = packets.iter().filter_map(|packet| subscription.number(packet, 0));
        numbers.map(|(numbers, _)| numbers.seq).collect()
    }

    #[test]
    fn who_needs_fewer_pictures_gets_the_temporal_layers_that_have_them() {
        let (start, mut packets) = (Instant::now(), published(90));
        let picture = |packet: &MediaPacket| packet.numbers.timestamp / 3_600;
        for packet in &mut packets {
            packet.numbers.arrived_at = start + Duration::from_millis(40) * picture(packet);
        }
        let config = codecs(Role::Publisher);
        let vp9 = *config.find(|it| it.spec().codec == str0m::format::Codec::Vp9).unwrap();
        let mut track = Track::new(TrackKey(1), MediaKind::Video, 0, 0);
        track.extend(vp9, packets.iter().cloned());
        track.begin_round();
        // Of four pictures one is of the lowest layer, one of the next and two of the highest.
        for (pictures_per_s, temporal, pictures) in
            [(0, u8::MAX, 90..91), (6, 0, 20..26), (13, 1, 43..49), (25, 2, 90..91)]
        {
            assert_eq!(track.temporal(1, pictures_per_s), temporal, "{pictures_per_s} a second");
            let mut subscription = subscription();
            subscription.temporal = temporal;
            let sent = packets.iter().filter(|packet| subscription.number(packet, 1).is_some());
            let sent: std::collections::BTreeSet<_> = sent.map(picture).collect();
            assert!(pictures.contains(&sent.len()), "{pictures_per_s}: {}", sent.len());
        }
        assert_eq!(track.temporal(1, 30), u8::MAX, "there are no more than 25");
        // Held to a lower spatial layer it gets no more of that either, and is reckoned by that.
        let now = start + Duration::from_millis(40) * 89;
        let mut held = subscription();
        held.negotiation = Negotiation::Active;
        held.offer.wanted.pictures_per_s = 6;
        held.hold_to(Cap::Upto(Layer { spatial: 0, temporal: 2 }));
        let lowest = track.steps(now, 0)[0];
        assert_eq!(lowest.layer, Layer { spatial: 0, temporal: 0 });
        assert_eq!(held.demand(&track, now).unwrap().usage_bps(), lowest.bitrate_bps);
    }

    #[test]
    fn a_packet_without_descriptor_is_left_out_of_a_thinned_stream() {
        let mut packets = published(12);
        let lowest = |packet: &MediaPacket| packet.spatial() == 0;
        let all = packets.iter().filter(|packet| lowest(packet)).count() as u64;
        let lost = packets.iter().position(|p| lowest(p) && p.numbers.timestamp == 3_600 * 6);
        let lost = lost.unwrap();
        packets[lost].frame = None;
        let mut subscription = subscription();
        let seqs = sent(&mut subscription, &packets[..=lost]);
        assert_eq!(subscription.needs_keyframe(&packets[lost], 0), Some(0));
        let more = sent(&mut subscription, &packets[lost + 1..]);
        let seqs: Vec<u64> = seqs.into_iter().chain(more).collect();
        assert_eq!(seqs.len() as u64, all - 1, "{seqs:?}");
        assert_eq!(seqs, (100..100 + seqs.len() as u64).collect::<Vec<_>>());
    }

    #[test]
    fn another_codec_goes_on_from_a_keyframe_with_the_next_numbers() {
        let packets = published(4);
        let mut subscription = subscription();
        let before = sent(&mut subscription, &packets).len() as u64;
        let of_backup = |number: u64| MediaPacket {
            numbers: Numbers { source: 9, seq: number, ..packets[0].numbers },
            starts_keyframe: number == 2,
            frame: None,
            ..packets[0].clone()
        };
        subscription.switch(3, TrackKey(2));
        let key = subscription.offer().track;
        assert_eq!((subscription.track(), key), (3, TrackKey(2)));
        let others: Vec<MediaPacket> = (0..5).map(of_backup).collect();
        assert_eq!(subscription.needs_keyframe(&others[1], 0), Some(0));
        let seqs = sent(&mut subscription, &others);
        assert_eq!(seqs, (100 + before..103 + before).collect::<Vec<_>>());
    }

    #[test]
    fn a_keyframe_without_descriptor_ends_the_layers() {
        let mut packets = published(12);
        let from = packets.iter().position(|p| p.numbers.timestamp == 3_600 * 6).unwrap();
        for (at, packet) in packets[from..].iter_mut().enumerate() {
            packet.frame = None;
            packet.starts_keyframe = at == 0;
        }
        let mut subscription = subscription();
        let before = sent(&mut subscription, &packets[..from]).len() as u64;
        assert!(before < from as u64, "some were left out");
        // Layers above the lowest were heard of a moment ago.
        let first = subscription.number(&packets[from], 2).unwrap().0.seq;
        assert_eq!(first, 100 + before);
        let after = sent(&mut subscription, &packets[from + 1..]);
        let end = first + (packets.len() - from) as u64;
        assert_eq!(after, (first + 1..end).collect::<Vec<_>>());
        assert_eq!(subscription.row().temporal_layer, None);
    }
}
