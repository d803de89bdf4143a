//! A peer in a meeting: of each participant it receives a video and a voice.

use std::sync::Arc;
use std::time::{Duration, Instant};

use stampede_core::{Arrival, Peer, PeerOptions, Scratch};
use str0m::format::Codec;
use str0m::media::{MediaKind, Pt};
use str0m::rtp::{RtpWrite, Ssrc};
use str0m::{Input, Rtc};

use super::{Sink, Stamps, arrival, establish, payload_type, payloads, poll, sender_addr};

/// Each stream has a packet so often. Two of them are a frame of video: 25 a second, about 160 kbps.
const TICK: Duration = Duration::from_millis(20);
pub(crate) const TICKS_PER_S: u64 = 50;
const VIDEO_BYTES: usize = 400;
const VOICE_BYTES: usize = 100;

/// What a peer has waiting when its worker comes to it: a packet of each stream of one participant.
pub(crate) type Visit = (Arrival, [Vec<u8>; 2]);

struct Published {
    ssrc: Ssrc,
    payload_type: Pt,
    video: bool,
}

/// A receiving peer, the plain str0m that sends it the streams, and when the peer wants to be woken.
pub(crate) struct Meeting {
    pub(crate) peer: Peer,
    pub(crate) sink: Sink,
    scratch: Scratch,
    rtc: Rtc,
    published: Vec<Published>,
    begin: Instant,
    sealed_ticks: u64,
    wake: Instant,
    looked_at: Instant,
}

impl Meeting {
    /// One with so many streams, half of them voices.
    pub(crate) fn new(streams: usize, options: &PeerOptions) -> Self {
        let start = Instant::now();
        let media: Vec<_> =
            [MediaKind::Video, MediaKind::Audio].into_iter().cycle().take(streams).collect();
        let (peer, mut rtc, mids, _) = establish(start, options, Stamps::None, &media);
        let types = [Codec::Vp8, Codec::Opus].map(|codec| payload_type(&rtc, codec));
        let mut direct = rtc.direct_api();
        let published = mids.iter().zip(&media).map(|(&mid, kind)| {
            let stream = direct.stream_tx_by_mid(mid, None).unwrap();
            stream.set_rtx_cache(1, Duration::from_millis(1), None);
            let video = *kind == MediaKind::Video;
            let payload_type = types[usize::from(!video)];
            Published { ssrc: stream.ssrc(), payload_type, video }
        });
        let published = published.collect();
        let begin = start + Duration::from_secs(11);
        Self {
            peer,
            sink: Sink::default(),
            scratch: Scratch::default(),
            rtc,
            published,
            begin,
            sealed_ticks: 0,
            wake: begin,
            looked_at: begin,
        }
    }

    /// A packet of each stream in each of so many ticks, participant by participant, evenly over a tick.
    pub(crate) fn seal(&mut self, ticks: u64) -> Vec<Visit> {
        let participants = self.published.len() as u32 / 2;
        let mut visits = Vec::new();
        for _ in 0..ticks {
            let now = self.begin + TICK * self.sealed_ticks as u32;
            for (participant, datagrams) in self.seal_tick(now).into_iter().enumerate() {
                let at = now + TICK * participant as u32 / participants;
                visits.push((arrival(at, self.begin), datagrams));
            }
            self.sealed_ticks += 1;
        }
        visits
    }

    /// A packet of each stream.
    fn seal_tick(&mut self, now: Instant) -> Vec<[Vec<u8>; 2]> {
        let tick = self.sealed_ticks;
        let (frame, part) = (tick / 2 + 1, tick % 2);
        let mut video = payloads(frame)[part as usize].to_vec();
        video.truncate(VIDEO_BYTES);
        let video: Arc<[u8]> = video.into();
        let voice: Arc<[u8]> = vec![0x5a; VOICE_BYTES].into();
        self.rtc.handle_input(Input::Timeout(now)).unwrap();
        poll(&mut self.rtc);
        let mut direct = self.rtc.direct_api();
        for stream in &self.published {
            let (payload, timestamp, marker) = match stream.video {
                true => (video.clone(), frame * 3_600, part == 1),
                false => (voice.clone(), tick * 960, false),
            };
            let sequence = (tick + 1).into();
            let (kind, timestamp) = (stream.payload_type, timestamp as u32);
            let rtp = RtpWrite::new(kind, sequence, timestamp, now, payload).marker(marker);
            direct.stream_tx(&stream.ssrc).unwrap().write_rtp(rtp);
        }
        self.rtc.handle_input(Input::Timeout(now)).unwrap();
        let mut sealed = poll(&mut self.rtc);
        // Without RTCP (RFC 5761 §4).
        sealed.retain(|datagram| !(64..96).contains(&(datagram[1] & 0x7f)));
        let place = |datagram: &Vec<u8>| {
            let ssrc = u32::from_be_bytes(datagram[8..12].try_into().unwrap());
            self.published.iter().position(|stream| *stream.ssrc == ssrc)
        };
        sealed.sort_by_cached_key(place);
        assert_eq!(sealed.len(), self.published.len());
        let mut sealed = sealed.into_iter();
        std::iter::from_fn(|| Some([sealed.next()?, sealed.next()?])).collect()
    }

    /// What a worker does: looks after the peer when it wants it, brings what has come, and asks once a
    /// second for what was counted.
    pub(crate) fn receive(&mut self, (at, datagrams): &Visit) {
        if self.wake <= at.instant {
            self.peer.handle_timeout(at.instant);
            self.wake = self.peer.drain(at.instant, &mut self.sink);
        }
        for datagram in datagrams {
            self.peer.handle_datagram(*at, sender_addr(), datagram, &mut self.scratch);
        }
        self.wake = self.peer.drain(at.instant, &mut self.sink);
        if at.instant >= self.looked_at + Duration::from_secs(1) {
            self.looked_at = at.instant;
            std::hint::black_box(self.peer.counters());
            self.peer.covers(&mut |cover| drop(std::hint::black_box(cover)));
            self.sink.datagrams.clear();
        }
    }

    /// Everything sealed was received, and nothing was refused.
    pub(crate) fn check(&self) {
        let counters = self.peer.counters();
        let of_each = self.sealed_ticks * self.published.len() as u64 / 2;
        assert_eq!(counters.video.packets.received, of_each);
        assert_eq!(counters.audio.packets.received, of_each);
        assert_eq!(counters.video.frames.decodable, Some(of_each / 2));
        assert_eq!(counters.transport.rejected, 0);
    }
}
