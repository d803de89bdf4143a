//! A known delay is found again in the latency of every frame, exactly: time is virtual.

use std::time::Duration;

use stampede_core::Sample;

use super::common::ms;
use super::reference::Story;
use super::rig::{Cell, Media, Repair};

/// From the sender to the peer, beside what is injected.
const TRANSIT: Duration = Duration::from_millis(10);

fn cell(media: Media, impair: &str) -> Cell {
    Cell {
        media,
        impair: impair.to_owned(),
        repair: if media == Media::Opus { Repair::Never } else { Repair::Rtx },
        first_sequence: 65_500,
        padding: true,
        mute: false,
        measured: false,
        whole_frames: 13,
        seconds: 5,
        seed: 77,
    }
}

fn latencies(samples: &[Sample]) -> Vec<Duration> {
    let latency = |sample: &Sample| match sample {
        Sample::Latency { latency, .. } => Some(*latency),
        _ => None,
    };
    samples.iter().filter_map(latency).collect()
}

/// When the last packet of each complete frame came, after it was sent.
fn truth(story: &Story, sent: &[std::time::Instant]) -> Vec<Duration> {
    let complete = story.complete_frames();
    complete.into_iter().map(|(frame, at)| at - sent[frame]).collect()
}

const ALL: [Media; 6] =
    [Media::Vp8, Media::Vp9, Media::H264, Media::Av1, Media::Av1Described, Media::Opus];

/// Stamps are NTP fractions, and the wall clock is read in nanoseconds.
fn assert_close(found: &[Duration], truth: &[Duration], cell: &Cell) {
    assert_eq!(found.len(), truth.len(), "{cell:?}");
    for (found, truth) in found.iter().zip(truth) {
        assert!(found.abs_diff(*truth) < Duration::from_micros(1), "{found:?} {truth:?} {cell:?}");
    }
}

#[test]
fn a_constant_delay_is_every_frames_latency() {
    for media in ALL {
        for delay_ms in [0, 1, 37, 250, 2_000] {
            let impair = if delay_ms == 0 { String::new() } else { format!("delay={delay_ms}ms") };
            let cell = cell(media, &impair);
            let outcome = cell.run(|_, _| {});
            let found = latencies(&outcome.samples);
            assert!(found.len() > 100, "{} {cell:?}", found.len());
            let truth = vec![TRANSIT + ms(delay_ms); found.len()];
            assert_close(&found, &truth, &cell);
        }
    }
}

#[test]
fn a_frame_waits_for_its_last_packet_and_for_repairs() {
    for media in ALL {
        let cell = cell(media, "loss=3%,delay=40ms,jitter=25ms,reorder=1%,duplicate=1%");
        let outcome = cell.run(|_, _| {});
        let mut found = latencies(&outcome.samples);
        let mut truth = truth(&outcome.story, &outcome.sent);
        // Audio comes out in the order of arrival.
        found.sort();
        truth.sort();
        assert!(found.len() > 80 && found.iter().max() > Some(&ms(70)), "{cell:?}");
        assert_close(&found, &truth, &cell);
    }
}
