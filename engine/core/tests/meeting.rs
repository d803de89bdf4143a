//! A subscriber of many streams, most of them busy or silent: what one of them has due is done on time.

#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::*;
use stampede_core::{MediaCounters, PeerEvent};
use str0m::change::SdpAnswer;
use str0m::media::{Direction, MediaKind, Pt};
use str0m::rtp::rtcp::Rtcp;
use str0m::rtp::{RtpWrite, Ssrc};

/// Streams announced, every other one a voice.
const STREAMS: usize = 120;
/// Of them so many are busy all the time, at both ends.
const BUSY: usize = 24;
/// The stream that is looked at, in the middle.
const QUIET: usize = 60;

struct Meeting {
    sim: Sim,
    /// Of each stream.
    ssrcs: Vec<Ssrc>,
    types: [Pt; 2],
    /// Written to each stream.
    written: Vec<u64>,
    /// A keyframe beside the first of all.
    keyframe: u64,
}

impl Meeting {
    fn connect() -> Self {
        let mut sim = Sim::subscriber(false);
        let start = sim.start;
        let mut changes = sim.server.rtc.sdp_api();
        let kinds = [MediaKind::Video, MediaKind::Audio].into_iter().cycle().take(STREAMS);
        let add = |kind| changes.add_media(kind, Direction::SendOnly, None, None, None);
        let mids: Vec<_> = kinds.map(add).collect();
        let (offer, pending) = changes.apply().unwrap();
        let offer = offer.to_sdp_string();
        let offer = offer.replace("a=rtcp-mux\r\n", "a=rtcp-mux\r\na=rtcp-rsize\r\n");
        let answer = sim.peer.accept_offer(start, &offer, &[]).unwrap();
        let answer = SdpAnswer::from_sdp_string(&answer).unwrap();
        sim.server.rtc.sdp_api().accept_answer(pending, answer).unwrap();
        sim.run_until_event(Duration::from_secs(5), |event| *event == PeerEvent::Connected);
        sim.run(ms(100));
        let types = [str0m::format::Codec::Vp8, str0m::format::Codec::Opus].map(|codec| {
            let mut params = sim.server.rtc.codec_config().params().iter();
            params.find(|params| params.spec().codec == codec).unwrap().pt()
        });
        let mut direct = sim.server.rtc.direct_api();
        let ssrc = |&mid| direct.stream_tx_by_mid(mid, None).unwrap().ssrc();
        let ssrcs: Vec<_> = mids.iter().map(ssrc).collect();
        // Nothing is repaired.
        let rtx = direct.stream_tx(&ssrcs[QUIET]).unwrap().rtx().unwrap();
        sim.fate = Box::new(move |datagram| match rtp(datagram) {
            Some((ssrc, _)) if ssrc == *rtx => Fate::Drop,
            _ => Fate::Deliver(Duration::ZERO),
        });
        Self { sim, ssrcs, types, written: vec![0; STREAMS], keyframe: 0 }
    }

    /// A packet of this stream. Each two of video are a frame, the first of all and `keyframe` a keyframe.
    fn write(&mut self, stream: usize) {
        let (now, ssrc) = (self.sim.now, self.ssrcs[stream]);
        let (sequence, video) = (self.written[stream], stream.is_multiple_of(2));
        self.written[stream] += 1;
        let (frame, part) = (sequence / 2, sequence % 2);
        let tag = if frame == 0 || frame == self.keyframe { 0x10 } else { 0x11 };
        let start = if part == 0 { 0x90 } else { 0x80 };
        let (id, tl0) = (frame as u16, frame as u8);
        let head = [start, 0xe0, 0x80 | (id >> 8) as u8, id as u8, tl0, 0];
        let (payload, ticks, kind) = match video {
            true => {
                let body = [tag, 0, 0, 0x9d, 0x01, 0x2a, 64, 0, 64, 0];
                ([&head[..], &body].concat(), frame * 3_600, self.types[0])
            }
            false => (vec![0xfc; 40], sequence * 960, self.types[1]),
        };
        let payload: Arc<[u8]> = payload.into();
        self.sim.server_writes(|rtc| {
            let mut direct = rtc.direct_api();
            let rtp = RtpWrite::new(kind, (sequence + 1).into(), ticks as u32, now, payload);
            let rtp = rtp.marker(video && part == 1).nackable(video);
            direct.stream_tx(&ssrc).unwrap().write_rtp(rtp);
        });
    }

    /// Time passes, and the busy streams go on; the quiet one too if `of_quiet`. `look` is asked each
    /// millisecond.
    fn run(&mut self, length_ms: u64, of_quiet: bool, look: &mut dyn FnMut(&Sim)) {
        for at_ms in 0..length_ms {
            if at_ms % 20 == 0 {
                let busy = (0..BUSY / 2).chain(STREAMS - BUSY / 2..STREAMS);
                let quiet = Some(QUIET).filter(|_| of_quiet);
                busy.chain(quiet).for_each(|stream| self.write(stream));
            }
            self.sim.run(ms(1));
            look(&self.sim);
        }
    }

    fn counters(&self) -> MediaCounters {
        self.sim.peer.counters().video
    }

    /// A packet of the quiet stream is lost, and the next one comes; returns when it did.
    fn lose_one(&mut self) -> Instant {
        let ssrc = *self.ssrcs[QUIET];
        let fate = std::mem::replace(&mut self.sim.fate, Box::new(|_| Fate::Drop));
        self.write(QUIET);
        self.sim.fate = fate;
        self.write(QUIET);
        self.sim.run(self.sim.delay);
        let came = self
            .sim
            .delivered
            .iter()
            .rev()
            .find(|datagram| rtp(&datagram.bytes).is_some_and(|(of, _)| of == ssrc));
        came.unwrap().at
    }
}

/// Notes when a count grows, in milliseconds after `from`.
fn note(times: &mut Vec<u128>, count: u64, from: Instant, now: Instant) {
    while (times.len() as u64) < count {
        times.push((now - from).as_millis());
    }
}

/// Reports on this SSRC that the server has got.
fn reports_on(sim: &Sim, ssrc: Ssrc) -> u64 {
    let blocks = |rtcp: &Rtcp| match rtcp {
        Rtcp::ReceiverReport(report) => {
            report.reports.iter().filter(|block| block.ssrc == ssrc).count() as u64
        }
        _ => 0,
    };
    sim.server.rtcp.iter().map(blocks).sum()
}

#[test]
fn a_quiet_stream_among_busy_ones_has_its_turn() {
    let mut meeting = Meeting::connect();
    let quiet = meeting.ssrcs[QUIET];
    meeting.run(1_200, true, &mut |_| {});
    let lost_at = meeting.lose_one();
    let before = reports_on(&meeting.sim, quiet);

    let (mut nacks, mut plis, mut given_up, mut reports) = (vec![], vec![], vec![], vec![]);
    meeting.run(10_000, false, &mut |sim| {
        let video = sim.peer.counters().video;
        note(&mut nacks, video.feedback.nack_sent, lost_at, sim.now);
        note(&mut plis, video.feedback.pli_sent, lost_at, sim.now);
        note(&mut given_up, video.packets.unrecovered, lost_at, sim.now);
        note(&mut reports, reports_on(sim, quiet) - before, lost_at, sim.now);
    });
    // At once, and each 100 ms up to the playout deadline of 500 ms, which has a grace of 50.
    assert_eq!(nacks, [1, 100, 200, 300, 400, 500]);
    assert_eq!(given_up, [551]);
    // Then a keyframe is wanted, as long as something came in the last five seconds.
    assert_eq!(plis, [551, 851, 1_451, 2_451, 3_451, 4_451]);
    // Once a second, up to eight seconds after the last packet.
    assert!((5..=14).contains(&reports.len()), "{reports:?}");
    assert!(
        reports.windows(2).all(|two| (500..=1_502).contains(&(two[1] - two[0]))),
        "{reports:?}"
    );
    assert!((6_400..=8_020).contains(reports.last().unwrap()), "{reports:?}");

    let mut covers = Vec::new();
    meeting.sim.peer.covers(&mut |cover| covers.push(cover));
    assert_eq!(covers.len(), STREAMS);
    let cover = covers.iter().find(|cover| cover.trouble.lost).unwrap();
    assert!(cover.trouble.undecodable && cover.ended.is_empty(), "{cover:?}");
    let until = cover.open.unwrap().until;
    assert!((lost_at..lost_at + ms(250)).contains(&until), "{:?}", until - lost_at);

    // A keyframe ends the freeze, which began with the last frame before the loss.
    assert_eq!(meeting.counters().freezes.count, 0);
    meeting.keyframe = meeting.written[QUIET] / 2;
    let (again, before) = (meeting.sim.now, reports_on(&meeting.sim, quiet));
    meeting.run(40, true, &mut |_| {});
    let freezes = meeting.counters().freezes;
    assert_eq!((freezes.count, freezes.causes.loss.count), (1, 1));
    let lasted = freezes.total_s.0.as_millis();
    assert!((10_000..10_100).contains(&lasted), "{lasted}");
    let pli_sent = meeting.counters().feedback.pli_sent;
    let mut reports = Vec::new();
    meeting.run(2_000, true, &mut |sim| {
        note(&mut reports, reports_on(sim, quiet) - before, again, sim.now);
    });
    assert_eq!(meeting.counters().feedback.pli_sent, pli_sent, "it has what it wanted");
    // Half a second after the first packet, as in the beginning, and the way is 10 ms each.
    assert!((520..=521).contains(&reports[0]), "{reports:?}");
}
