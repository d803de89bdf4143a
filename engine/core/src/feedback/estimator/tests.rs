//! The estimator behind a link that is as fast as we say, in virtual time.

use std::time::Duration;

use super::*;
use crate::feedback::remb::Throttle;

/// Ethernet, IP, UDP, RTP with extensions, SRTP's tag: what a link carries beside the payload.
const OVERHEAD_BYTES: u64 = 60;
const FPS: u64 = 30;

/// A sender, a link with a queue that drops what does not fit, and the estimator.
struct Link {
    start: Instant,
    estimator: Estimator,
    throttle: Throttle,
    now_us: u64,
    /// When the link is free again.
    free_us: u64,
    /// Estimates that pass the throttle: milliseconds, bits a second.
    remb: Vec<(u64, f64)>,
}

impl Link {
    fn new() -> Self {
        let start = Instant::now();
        let (throttle, remb) = (Throttle::default(), Vec::new());
        let estimator = Estimator::new(start);
        Self { start, estimator, throttle, now_us: 0, free_us: 0, remb }
    }

    /// At these milliseconds it told so many bits a second, as libwebrtc did, or off by less than a share.
    fn assert_tells(&self, libwebrtcs: &[(u64, f64)], off: f64) {
        for &(at_ms, bitrate_bps) in libwebrtcs {
            let ours = self.remb.iter().find(|remb| remb.0 >= at_ms).unwrap();
            assert_eq!(ours.0, at_ms);
            assert!((ours.1 / bitrate_bps - 1.0).abs() < off, "{ours:?}, libwebrtc {bitrate_bps}");
        }
    }

    /// Sends so long at this rate, in frames of packets that leave at once.
    fn send(&mut self, bitrate_bps: u64, link_bps: u64, queue: Duration, length: Duration) {
        let until = self.now_us + length.as_micros() as u64;
        while self.now_us < until {
            let frame_bytes = bitrate_bps / 8 / FPS;
            let packets = frame_bytes.div_ceil(1_150);
            for packet in 0..packets {
                self.packet(frame_bytes / packets, self.now_us + packet * 30, link_bps, queue);
            }
            self.now_us += 1_000_000 / FPS;
        }
    }

    fn packet(&mut self, bytes: u64, sent_us: u64, link_bps: u64, queue: Duration) {
        if self.free_us.saturating_sub(sent_us) > queue.as_micros() as u64 {
            return;
        }
        let takes_us = (bytes + OVERHEAD_BYTES) * 8_000_000 / link_bps;
        self.free_us = self.free_us.max(sent_us) + takes_us;
        let arrived_us = self.free_us + 10_000;
        let now = self.start + Duration::from_micros(arrived_us);
        let sent = ((sent_us << 18) / 1_000_000) as u32 & 0xff_ffff;
        if let Some(bitrate_bps) = self.estimator.packet(now, sent, bytes as u32)
            && self.throttle.passes(now, bitrate_bps)
        {
            self.remb.push((arrived_us / 1_000, bitrate_bps));
        }
    }
}

const FAST_BPS: u64 = 1_000_000_000;
const NO_QUEUE: Duration = Duration::from_millis(300);

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn without_a_limit_it_is_silent_for_five_seconds_then_starts_at_the_rate_and_grows() {
    let mut link = Link::new();
    link.send(1_600_000, FAST_BPS, NO_QUEUE, s(60));
    let &(first_ms, first_bps) = link.remb.first().unwrap();
    assert!((5_000..5_200).contains(&first_ms), "{first_ms}");
    assert!((first_bps / 1.6e6 - 1.0).abs() < 0.05, "{first_bps}");
    assert!(link.remb.windows(2).all(|pair| pair[1].1 >= 0.99 * pair[0].1), "it never falls");
    assert!(link.remb.windows(2).all(|pair| (200..=240).contains(&(pair[1].0 - pair[0].0))));
    let after = |ms| link.remb.iter().find(|(at_ms, _)| *at_ms >= first_ms + ms).unwrap().1;
    assert!((after(2_000) / after(1_000) - 1.08).abs() < 0.01);
    let last_bps = link.remb.last().unwrap().1;
    assert!((last_bps / 1.6e6 - 1.5).abs() < 0.05, "{last_bps}");
}

#[test]
fn a_limit_of_800_kilobits_takes_it_down_within_a_second_and_a_higher_one_lets_it_up() {
    let mut link = Link::new();
    link.send(1_600_000, FAST_BPS, NO_QUEUE, s(8));
    let (limited_ms, before) = (link.now_us / 1_000, link.remb.len());
    assert!(link.remb[before - 1].1 > 1.6e6);
    link.send(1_600_000, 800_000, NO_QUEUE, s(2));
    let falling = &link.remb[before..];
    let below = |bps: f64| falling.iter().find(|remb| remb.1 < bps).map(|r| r.0 - limited_ms);
    assert!(below(1.4e6).is_some_and(|ms| ms < 600), "{falling:?}");
    assert!(below(0.7e6).is_some_and(|ms| ms < 1_500), "{falling:?}");
    // Chrome: 0.57 M of 0.8 M.
    let low_bps = falling.last().unwrap().1;
    assert!((0.5e6..0.68e6).contains(&low_bps), "{low_bps}");
    // The server takes a lower layer, which has room. It keeps what it has learned of the link.
    link.send(160_000, 800_000, NO_QUEUE, s(8));
    let held_bps = link.remb.last().unwrap().1;
    assert!((0.9..1.2).contains(&(held_bps / low_bps)), "{held_bps}");
    // The limit is gone, and probes fill it.
    let fell = link.remb.len();
    link.send(1_000_000, FAST_BPS, NO_QUEUE, s(10));
    assert!(link.remb[fell..].last().unwrap().1 > 1e6);
}

/// The numbers are those of libwebrtc's own `RemoteBitrateEstimatorAbsSendTime` (its C++ of October 2024)
/// of the same packets: down to 85 % of a way of 1 Mbit/s, held while a layer comes that has room, up by a
/// packet in the time of an answer where about so much comes as the way was seen to carry, and by 8 % a
/// second where it is more.
#[test]
fn its_estimates_are_libwebrtcs_of_the_same_packets() {
    let mut link = Link::new();
    link.send(1_600_000, FAST_BPS, NO_QUEUE, s(8));
    link.send(1_600_000, 1_000_000, NO_QUEUE, s(2));
    link.send(450_000, 1_000_000, NO_QUEUE, s(10));
    link.send(900_000, FAST_BPS, NO_QUEUE, s(10));
    link.send(1_600_000, FAST_BPS, NO_QUEUE, s(20));
    let libwebrtcs = [
        (5_076, 1_556_400.0),
        (7_109, 1_820_000.0),
        (11_325, 795_809.0),
        (15_659, 795_809.0),
        (22_076, 795_809.0),
        (24_176, 823_739.0),
        (26_276, 856_325.0),
        (28_376, 884_477.0),
        (30_476, 904_722.0),
        (32_576, 1_045_677.0),
        (34_643, 1_225_984.0),
        (36_676, 1_433_627.0),
        (38_709, 1_676_436.0),
        (40_742, 1_960_369.0),
        (42_743, 2_286_751.0),
        (44_776, 2_396_428.0),
        (48_842, 2_409_760.0),
    ];
    // It rounds times to milliseconds otherwise, which is an update more or less.
    link.assert_tells(&libwebrtcs, 0.04);
}

/// The numbers are libwebrtc's again: with frames of one packet it knows a rate after four distances, which
/// then grows by 8 % a second also where four times as much comes.
#[test]
fn a_low_layer_that_comes_first_is_a_probe() {
    let mut link = Link::new();
    link.send(160_000, FAST_BPS, NO_QUEUE, s(6));
    link.send(640_000, FAST_BPS, NO_QUEUE, s(14));
    let libwebrtcs = [
        (143, 160_841.0),
        (2_243, 189_054.0),
        (6_410, 258_243.0),
        (10_609, 356_759.0),
        (14_809, 492_895.0),
        (19_009, 680_979.0),
    ];
    link.assert_tells(&libwebrtcs, 0.001);
}

#[test]
fn jitter_alone_is_no_congestion() {
    let mut link = Link::new();
    let mut rng = fastrand::Rng::with_seed(7);
    for frame in 0..1_800_u64 {
        // Up to 15 ms late, in order.
        link.free_us = link.free_us.max(frame * 33_333 + rng.u64(0..15_000));
        for packet in 0..6 {
            link.packet(1_100, frame * 33_333 + packet * 30, FAST_BPS, NO_QUEUE);
        }
    }
    let least_bps = link.remb.iter().map(|remb| remb.1).fold(f64::INFINITY, f64::min);
    assert!(least_bps > 1.3e6, "{least_bps}");
}

#[test]
fn a_pause_begins_anew_and_keeps_the_estimate() {
    let mut link = Link::new();
    link.send(1_600_000, FAST_BPS, NO_QUEUE, s(8));
    let before_bps = link.remb.last().unwrap().1;
    link.now_us += 5_000_000;
    let before = link.remb.len();
    link.send(160_000, FAST_BPS, NO_QUEUE, s(3));
    assert!(link.remb[before..].iter().all(|remb| remb.1 >= 0.99 * before_bps));
}
