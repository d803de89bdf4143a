//! How much a run would receive, before it starts.

use stampede_media::MediaClip;
use stampede_signaling::session::{Quality, Role, Subscription};

use super::cast;
use super::cohorts::Cohorts;
use crate::calibrate;
use crate::flags::Plan;
use crate::live::bits;
use crate::report::judge::group;

/// What all subscribers together would receive.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Load {
    /// Media packets.
    pub packets_per_s: f64,
    /// Payload bits.
    pub bitrate_bps: f64,
}

impl Load {
    fn add(&mut self, clip: &MediaClip, tracks: f64) {
        let packets: usize = clip.frames.iter().map(|frame| frame.packets.len()).sum();
        let seconds = clip.duration_seconds();
        if seconds > 0.0 {
            self.packets_per_s += tracks * packets as f64 / seconds;
            self.bitrate_bps += tracks * clip.bitrate_bps();
        }
    }
}

/// The load at the time of most subscribers; `None` where nothing published is ours, so that it can't
/// be known.
pub(crate) fn expected(plan: &Plan) -> Option<Load> {
    if plan.video_layers.is_empty() && plan.audio_clip.is_none() {
        return None;
    }
    let rooms = cast::rooms(plan, "load");
    // Who is in which cohort changes nothing about the sum.
    let subscribers = cast::subscribers(plan, "load", &rooms, &Cohorts::of(plan, 0));
    let mut load = Load::default();
    for member in &subscribers {
        let Role::Subscriber { subscription, quality } = member.role else { continue };
        let [video, audio] = member.tracks.map(|tracks| tracks.unwrap_or(0));
        for place in 0..video {
            let quality = match subscription {
                Subscription::Layout { layout, .. } => layout.size(place as usize).quality,
                Subscription::Auto | Subscription::Manual { .. } => quality,
            };
            if let Some(clip) = layer(plan, quality) {
                load.add(clip, 1.0);
            }
        }
        if let Some(clip) = &plan.audio_clip {
            load.add(clip, f64::from(audio));
        }
    }
    // Of those that come and go in stages only some are there at a time.
    let at_once = plan.shape.subscribers_peak() as f64 / subscribers.len().max(1) as f64;
    load.packets_per_s *= at_once;
    load.bitrate_bps *= at_once;
    Some(load)
}

/// The clip that is sent for a quality; of fewer layers the nearest one below.
fn layer(plan: &Plan, quality: Quality) -> Option<&MediaClip> {
    let layers = &plan.video_layers;
    let wanted = match quality {
        Quality::Low => 0,
        Quality::Medium => 1,
        Quality::High => 2,
    };
    layers.get(wanted.min(layers.len().checked_sub(1)?)).map(|clip| &**clip)
}

/// A line for a run that asks for more than this machine can carry by its calibration.
pub(crate) fn warning(plan: &Plan, workers: usize) -> Option<String> {
    let calibration = calibrate::load()?;
    let expected = expected(plan)?;
    let per_core = calibration.packets_per_s_per_core(plan.resolution)?;
    warn(expected, per_core, workers, &calibration.measured_at)
}

fn warn(expected: Load, per_core: f64, workers: usize, measured_at: &str) -> Option<String> {
    let capacity = per_core * workers as f64;
    (expected.packets_per_s > capacity).then(|| {
        format!(
            "warning: this run would receive {} packets/s ({}), but {workers} worker{} of this \
             machine should carry {} (reckoned from stampede doctor --calibrate, {measured_at}): \
             expect it to be invalid",
            group(expected.packets_per_s as u64),
            bits(expected.bitrate_bps),
            if workers == 1 { "" } else { "s" },
            group(capacity as u64)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::{Command, Parsed, parse};

    fn plan(args: &[&str]) -> Plan {
        let words = ["stampede", "run"].iter().chain(args).map(Into::into);
        let Parsed::Command(Command::Run(mut flags)) = parse(words).unwrap() else { panic!() };
        flags.url = None;
        Plan::new(*flags).unwrap()
    }

    fn packets(args: &[&str]) -> f64 {
        expected(&plan(args)).unwrap().packets_per_s
    }

    #[test]
    fn load_is_clips_times_subscribers() {
        let audio = ["--video-publishers=0", "--subscribers=100"];
        let load = packets(&audio);
        assert!((4_900.0..5_100.0).contains(&load), "50 Opus packets a second each: {load}");
        let one = packets(&["--subscribers=1", "--audio-publishers=0"]);
        let many = packets(&["--subscribers=300", "--audio-publishers=0", "--rooms=2"]);
        assert!((many / one - 600.0).abs() < 1e-6, "{many} of {one}");
        let low = packets(&["--subscribers=1", "--audio-publishers=0", "--video-resolution=low"]);
        assert!(low < one / 3.0, "{low} of {one}");
        let peak = ["--stage=1s:300", "--stage=1s:0", "--stage=1s:300", "--audio-publishers=0"];
        assert!((packets(&peak) / one - 300.0).abs() < 1e-6);
        let nobodys = plan(&["--video-publishers=0", "--audio-publishers=0"]);
        assert_eq!(expected(&nobodys), None);
    }

    #[test]
    fn only_more_than_can_be_carried_is_warned_of() {
        let load = Load { packets_per_s: 200_000.0, bitrate_bps: 1.5e9 };
        assert_eq!(warn(load, 110_000.0, 2, "x"), None);
        let line = warn(load, 110_000.0, 1, "2026-01-01").unwrap();
        assert!(line.contains("200,000 packets/s") && line.contains("110,000"), "{line}");
        assert!(!line.contains('\n'));
    }
}
