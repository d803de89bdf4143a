//! Congestion feedback of a subscriber, to a str0m server behind a link of our choice.

#![allow(clippy::unwrap_used)]

mod common;

use std::cell::Cell;
use std::rc::Rc as Shared;
use std::time::Duration;

use common::*;
use stampede_core::{
    CongestionFeedback, MediaKind, Peer, PeerEvent, PeerOptions, Sample, StreamReport,
};
use str0m::Rtc;
use str0m::change::SdpAnswer;
use str0m::media::{self, Direction, Pt};
use str0m::rtp::rtcp::Rtcp;
use str0m::rtp::{Extension, RtpWrite, Ssrc};

const PAYLOAD_BYTES: usize = 1_100;
const PACKETS_PER_FRAME: usize = 6;
/// 30 frames a second of six packets.
const BITRATE_BPS: f64 = (PAYLOAD_BYTES * PACKETS_PER_FRAME * 8 * 30) as f64;

struct Pair {
    sim: Sim,
    video: Ssrc,
    rtx: Ssrc,
    pt: Pt,
    sequence: u64,
    /// Bits a second that the way to the peer carries, with a queue of 300 ms.
    link_bps: Shared<Cell<u64>>,
    answer: String,
}

/// A server that stamps packets with these extensions.
fn connect(feedback: CongestionFeedback, extensions: &[(u8, Extension)]) -> Pair {
    let start = std::time::Instant::now();
    let mut config = Rtc::builder().clear_extension_map();
    for (id, extension) in extensions {
        config = config.set_extension(*id, extension.clone());
    }
    let options = PeerOptions { feedback, ..options() };
    let peer = Peer::subscriber(start, peer_addr(), &options, false).unwrap();
    let mut sim = Sim::new(start, peer, Server::new(start, config));
    let mut changes = sim.server.rtc.sdp_api();
    let mid = changes.add_media(media::MediaKind::Video, Direction::SendOnly, None, None, None);
    let (offer, pending) = changes.apply().unwrap();
    let answer = sim.peer.accept_offer(start, &offer.to_sdp_string(), &[]).unwrap();
    let accepted = SdpAnswer::from_sdp_string(&answer).unwrap();
    sim.server.rtc.sdp_api().accept_answer(pending, accepted).unwrap();
    sim.run_until_event(Duration::from_secs(5), |event| *event == PeerEvent::Connected);
    let params = sim.server.rtc.codec_config().params().iter();
    let pt = params.filter(|p| p.spec().codec == str0m::format::Codec::Vp8).map(|p| p.pt());
    let pt = pt.into_iter().next().unwrap();
    let mut direct = sim.server.rtc.direct_api();
    let stream = direct.stream_tx_by_mid(mid, None).unwrap();
    stream.set_rtx_cache(2_000, Duration::from_secs(5), None);
    let (video, rtx) = (stream.ssrc(), stream.rtx().unwrap());
    let link_bps = Shared::new(Cell::new(1_000_000_000));
    let (limit, clock, mut free) = (link_bps.clone(), sim.clock.clone(), start);
    sim.fate = Box::new(move |bytes| {
        let now = clock.get();
        let waits = free.saturating_duration_since(now);
        if waits > ms(300) {
            return Fate::Drop;
        }
        let takes_us = (bytes.len() as u64 + 28) * 8_000_000 / limit.get();
        free = free.max(now) + Duration::from_micros(takes_us);
        Fate::Deliver(free - now)
    });
    Pair { sim, video, rtx, pt, sequence: 1, link_bps, answer }
}

impl Pair {
    /// Sends video in real time.
    fn send(&mut self, length: Duration) {
        let begin = self.sim.now;
        for frame in 0..(length.as_millis() as u64 * 30 / 1_000) {
            self.sim.run_until(begin + Duration::from_micros(frame * 1_000_000 / 30));
            let (now, ssrc, pt, first) = (self.sim.now, self.video, self.pt, self.sequence);
            let timestamp = ((now - self.sim.start).as_micros() * 90 / 1_000) as u32;
            self.sim.server_writes(|rtc| {
                let mut direct = rtc.direct_api();
                let stream = direct.stream_tx(&ssrc).unwrap();
                for index in 0..PACKETS_PER_FRAME as u64 {
                    let mut payload = vec![0x80_u8, 0xe0, 0x80, 0, 0, 0, 1];
                    payload.resize(PAYLOAD_BYTES, 7);
                    let marker = index + 1 == PACKETS_PER_FRAME as u64;
                    let sequence = (first + index).into();
                    let rtp = RtpWrite::new(pt, sequence, timestamp, now, payload);
                    stream.write_rtp(rtp.marker(marker).nackable(true));
                }
            });
            self.sequence += PACKETS_PER_FRAME as u64;
        }
    }

    /// What REMBs said since, in bits a second, with their SSRCs.
    fn estimates(&self, from: usize) -> Vec<(f64, Vec<u32>)> {
        let rtcp = self.sim.server.rtcp[from..].iter();
        let remb = rtcp.filter_map(|rtcp| match rtcp {
            Rtcp::Remb(remb) => Some((f64::from(remb.bitrate), remb.ssrcs.clone())),
            _ => None,
        });
        remb.collect()
    }

    fn twcc(&self) -> usize {
        self.sim.server.rtcp.iter().filter(|rtcp| matches!(rtcp, Rtcp::Twcc(_))).count()
    }

    fn finish(mut self) -> StreamReport {
        let reports = self.sim.finish();
        reports.into_iter().find(|report| report.kind == MediaKind::Video).unwrap()
    }
}

#[test]
fn the_estimate_goes_out_as_remb_falls_at_a_limit_and_comes_back() {
    let mut pair = connect(CongestionFeedback::Chrome, &[(3, Extension::AbsoluteSendTime)]);
    pair.send(ms(4_900));
    assert!(pair.estimates(0).is_empty(), "silent for five seconds");
    pair.send(ms(3_100));
    let free = pair.estimates(0);
    // Three seconds, one every 200 to 240 ms.
    assert!((12..=16).contains(&free.len()), "{}", free.len());
    assert!((free[0].0 / BITRATE_BPS - 1.0).abs() < 0.08, "{}", free[0].0);
    assert!(free.windows(2).all(|pair| pair[1].0 >= pair[0].0));
    assert!(free.iter().all(|(_, ssrcs)| *ssrcs == [*pair.video]));

    pair.link_bps.set(800_000);
    let begin = pair.sim.server.rtcp.len();
    pair.send(ms(1_500));
    let limited = pair.estimates(begin);
    let low_bps = limited.last().unwrap().0;
    assert!((450e3..700e3).contains(&low_bps), "{low_bps}");
    assert!(limited.iter().any(|(_, ssrcs)| ssrcs.contains(&*pair.rtx)), "RTX once it is heard");
    let nacks = pair.sim.server.rtcp[begin..].iter();
    assert!(nacks.filter(|rtcp| matches!(rtcp, Rtcp::Nack(_))).count() > 5);

    pair.link_bps.set(1_000_000_000);
    pair.send(ms(12_000));
    let back_bps = pair.estimates(begin).last().unwrap().0;
    // By 8 % a second, after some seconds in which the filter still sees the queue empty.
    assert!(back_bps > 1.15 * low_bps, "{low_bps} {back_bps}");
    let sent = pair.sim.sink.samples.iter();
    let sent = sent.filter(|sample| matches!(sample, Sample::BandwidthEstimate { .. })).count();
    let report = pair.finish();
    // The last packets were under way.
    let counted = (report.feedback.remb_sent, report.feedback.twcc_sent);
    assert!(counted.1 == 0 && (sent as u64..sent as u64 + 2).contains(&counted.0), "{counted:?}");
}

#[test]
fn arrivals_are_reported_where_the_server_asks_for_them() {
    let both = [(3, Extension::TransportSequenceNumber), (4, Extension::AbsoluteSendTime)];
    for extensions in [&both[..1], &both] {
        let mut pair = connect(CongestionFeedback::Chrome, extensions);
        assert!(pair.answer.contains("transport-cc"), "{}", pair.answer);
        pair.send(ms(8_000));
        assert!(pair.estimates(0).is_empty(), "no REMB beside it");
        // One every 62 ms.
        assert!((110..=135).contains(&pair.twcc()), "{}", pair.twcc());
        let counted = pair.twcc() as u64;
        let reported: u64 = pair.sim.server.rtcp.iter().map(received).sum();
        assert!(reported + 2 * PACKETS_PER_FRAME as u64 * 2 >= pair.sequence - 1, "{reported}");
        let report = pair.finish();
        assert!(report.feedback.twcc_sent >= counted);
    }
}

/// Packets of which this says when they arrived.
fn received(rtcp: &Rtcp) -> u64 {
    match rtcp {
        Rtcp::Twcc(twcc) => twcc.delta.len() as u64,
        _ => 0,
    }
}

#[test]
fn without_feedback_nothing_is_said_of_congestion() {
    let both = [(3, Extension::TransportSequenceNumber), (4, Extension::AbsoluteSendTime)];
    let mut pair = connect(CongestionFeedback::None, &both);
    assert!(!pair.answer.contains("transport-cc"), "{}", pair.answer);
    pair.send(ms(7_000));
    assert_eq!((pair.estimates(0).len(), pair.twcc()), (0, 0));
    let reports = pair.sim.server.rtcp.iter();
    assert!(reports.filter(|rtcp| matches!(rtcp, Rtcp::ReceiverReport(_))).count() >= 4);
}
