//! How much a run would receive, and send over the same connections, before it starts.

use std::sync::Arc;

use stampede_media::{Codec, MediaClip};
use stampede_signaling::session::{Quality, Receives, Subscription};

use crate::{Clips, Participants, Scenario};

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
    let receivers = participants.participants.iter().chain(&participants.subscribers);
    let mut load = Load::default();
    for one in receivers.clone() {
        let Some(Receives { subscription, quality }) = one.role.receives else { continue };
        let [video, audio] = one.tracks.map(|tracks| tracks.unwrap_or(0));
        for place in 0..video {
            let quality = match subscription {
                Subscription::Layout { layout, .. } => layout.size(place as usize).quality,
                Subscription::Auto | Subscription::Manual { .. } => quality,
            };
            for (codec, share) in &codecs {
                if let Some(clip) = layer(clips.of_codec(*codec), quality) {
                    load.add(clip, *share);
                }
            }
        }
        if let Some(clip) = &clips.audio {
            load.add(clip, f64::from(audio));
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
        let nobodys =
            Draft { video_publishers: Some(0), audio_publishers: Some(0), ..Draft::default() };
        assert_eq!(load(nobodys), None);
    }
}
