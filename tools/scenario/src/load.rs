//! How much a run would receive, and send over the same connections, before it starts.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use stampede_media::{Codec, MediaClip};
use stampede_signaling::session::{Quality, Receives, Subscription, TrackSource};

use crate::{Clips, ParticipantSpec, Participants, Scenario};

/// What everybody who receives would receive, and send over the same connection.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Load {
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
pub fn expected(scenario: &Scenario, clips: &Clips, participants: &Participants) -> Option<Load> {
    if !clips.has_video() && !clips.has_audio() {
        return None;
    }
    // Which of a room's codecs somebody gets is not told apart: each gets a share of all.
    let mix = scenario.video.as_ref().and_then(|video| video.codec.as_ref());
    let codecs: Vec<(Option<Codec>, f64)> = match mix {
        Some(mix) => mix.shares().map(|(codec, share)| (Some(codec), share)).collect(),
        None => vec![(None, 1.0)],
    };
    let mut shared: HashMap<&Rc<str>, [u32; 2]> = HashMap::new();
    for one in participants.publishers.iter().chain(&participants.participants) {
        let sum = shared.entry(&one.room).or_default();
        let [screens, sounds] = of_screens(one);
        *sum = [sum[0] + screens, sum[1] + sounds];
    }
    let screen = match scenario.single_layer {
        true => &clips.screen[clips.screen.len().saturating_sub(1)..],
        false => &clips.screen[..],
    };
    let receivers = participants.participants.iter().chain(&participants.subscribers);
    let mut load = Load::default();
    for one in receivers.clone() {
        let Some(Receives { subscription, quality }) = one.role.receives else { continue };
        let [video, audio] = one.tracks.map(|tracks| tracks.unwrap_or(0));
        // As if screens took the last places.
        let shared = shared.get(&one.room).copied().unwrap_or_default();
        let own = of_screens(one);
        let screens = (shared[0] - own[0]).min(video);
        let sounds = (shared[1] - own[1]).min(audio);
        for place in 0..video {
            let quality = match subscription {
                Subscription::Layout { layout, .. } => layout.size(place as usize).quality,
                Subscription::Auto | Subscription::Manual { .. } => quality,
            };
            if place >= video - screens {
                if let Some(clip) = layer(screen, quality) {
                    load.add(clip, 1.0);
                }
                continue;
            }
            for (codec, share) in &codecs {
                if let Some(clip) = layer(clips.of_codec(*codec), quality) {
                    load.add(clip, *share);
                }
            }
        }
        if let Some(clip) = &clips.audio {
            load.add(clip, f64::from(audio - sounds));
        }
        if let Some(clip) = &clips.screen_audio {
            load.add(clip, f64::from(sounds));
        }
    }
    let tracks = participants.participants.iter().flat_map(|one| &one.media.tracks);
    for layer in tracks.flat_map(|track| &track.layers) {
        load.add(&layer.clip, 1.0);
    }
    // Of those that come and go in stages only some are there at a time.
    let at_once = scenario.shape.receivers_peak() as f64 / receivers.count().max(1) as f64;
    load.packets_per_s *= at_once;
    load.bitrate_bps *= at_once;
    Some(load)
}

/// Shared screens that somebody sends, and their sounds.
fn of_screens(one: &ParticipantSpec) -> [u32; 2] {
    let of = |source| one.role.tracks.iter().filter(|track| track.source == source).count() as u32;
    [of(TrackSource::ScreenShare), of(TrackSource::ScreenShareAudio)]
}

/// The clip that is sent for a quality; of fewer layers the nearest one below.
fn layer(layers: &[Arc<MediaClip>], quality: Quality) -> Option<&MediaClip> {
    let wanted = match quality {
        Quality::Low => 0,
        Quality::Medium => 1,
        Quality::High => 2,
    };
    layers.get(wanted.min(layers.len().checked_sub(1)?)).map(|clip| &**clip)
}

#[cfg(test)]
mod tests {
    use stampede_media::builtin;

    use super::*;
    use crate::Draft;
    use crate::values::Resolution;

    fn load(draft: Draft) -> Option<Load> {
        let scenario = Scenario::new(draft).unwrap();
        let mut clips = Clips::default();
        if scenario.video.is_some() {
            clips.video = builtin::video(Codec::Vp8).unwrap().into_iter().map(Arc::new).collect();
        }
        if scenario.audio.is_some() {
            clips.audio = Some(Arc::new(builtin::audio().unwrap()));
        }
        if scenario.shape.screen_shares() > 0 {
            let screen = builtin::screen_share(Codec::Vp8).unwrap();
            clips.screen = screen.into_iter().map(Arc::new).collect();
            let sound = scenario.shape.screen_share_audio;
            clips.screen_audio = sound.then(|| Arc::new(builtin::audio().unwrap()));
        }
        let participants = Participants::new(&scenario, &clips, "load", 0);
        expected(&scenario, &clips, &participants)
    }

    fn video_only(subscribers: u32) -> Draft {
        Draft { subscribers: Some(subscribers), audio_publishers: Some(0), ..Draft::default() }
    }

    #[test]
    fn load_is_clips_times_subscribers() {
        let packets = |draft| load(draft).unwrap().packets_per_s;
        let audio = Draft { video_publishers: Some(0), subscribers: Some(100), ..Draft::default() };
        let of_audio = packets(audio);
        assert!((4_900.0..5_100.0).contains(&of_audio), "50 Opus packets/s each: {of_audio}");
        let one = packets(video_only(1));
        let many = packets(Draft { rooms: 2, ..video_only(300) });
        assert!((many / one - 600.0).abs() < 1e-6, "{many} of {one}");
        let low = packets(Draft { resolution: Resolution::Low, ..video_only(1) });
        assert!(low < one / 3.0, "{low} of {one}");
        let both = packets(Draft { participants: Some(2), ..Draft::default() });
        let (beside, sent) = (packets(Draft { subscribers: Some(2), ..Draft::default() }), both);
        assert!(sent > beside, "{sent} with what they send, {beside} without");
        let stages = ["1s:300", "1s:0", "1s:300"].map(|stage| stage.parse().unwrap()).to_vec();
        let staged = Draft { stages, subscribers: None, ..video_only(0) };
        assert!((packets(staged) / one - 300.0).abs() < 1e-6);
        // A screen is no camera, and its sound no microphone.
        let shared = |screens, sound, no_simulcast| Draft {
            video_publishers: Some(0),
            audio_publishers: Some(0),
            screen_share_publishers: screens,
            screen_share_audio: sound,
            no_simulcast,
            subscribers: Some(10),
            ..Draft::default()
        };
        let rate = |clip: &MediaClip| {
            let packets: usize = clip.frames.iter().map(|frame| frame.packets.len()).sum();
            packets as f64 / clip.duration_seconds()
        };
        let [low, high] = &builtin::screen_share(Codec::Vp8).unwrap()[..] else { panic!() };
        let screens = packets(shared(2, false, false));
        assert!((screens - 20.0 * rate(high)).abs() < 1e-6, "{screens}");
        let with_sound = packets(shared(2, true, false)) - screens;
        assert!((with_sound - 20.0 * rate(&builtin::audio().unwrap())).abs() < 1e-6);
        let small = |no_simulcast| {
            packets(Draft { resolution: Resolution::Low, ..shared(1, false, no_simulcast) })
        };
        assert!((small(false) - 10.0 * rate(low)).abs() < 1e-6);
        assert!((small(true) - 10.0 * rate(high)).abs() < 1e-6, "there is but one layer");
        let beside = packets(Draft { screen_share_publishers: 1, ..video_only(10) });
        assert!((beside - 10.0 * (one + rate(high))).abs() < 1e-6, "{beside}");
        let nobodys =
            Draft { video_publishers: Some(0), audio_publishers: Some(0), ..Draft::default() };
        assert_eq!(load(nobodys), None);
    }
}
