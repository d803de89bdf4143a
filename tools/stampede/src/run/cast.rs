//! Who takes part: every participant of a run with its name, room and tracks.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use stampede_core::{MediaKind, PublishLayer, PublishTrack};
use stampede_media::MediaClip;
use stampede_signaling::session::{LocalLayer, LocalTrack, Quality, Role, Subscription, TrackKind};

use super::participant::Media;
use crate::flags::Plan;
use crate::flags::values::Resolution;

/// LiveKit's names and qualities of simulcast layers, lowest first.
const LAYERS: [(&str, Quality); 3] =
    [("q", Quality::Low), ("h", Quality::Medium), ("f", Quality::High)];

/// A participant before it is started.
#[derive(Clone)]
pub(crate) struct CastMember {
    /// Unique on the server.
    pub identity: String,
    /// Its room.
    pub room: Rc<str>,
    /// Signalling role.
    pub role: Role,
    /// Media role.
    pub media: Media,
}

/// What all room names begin with.
pub(crate) fn room_base(plan: &Plan, run_id: &str) -> String {
    plan.room.clone().unwrap_or_else(|| format!("stampede-{run_id}"))
}

/// Names of the rooms.
pub(crate) fn rooms(plan: &Plan, run_id: &str) -> Vec<Rc<str>> {
    let base = room_base(plan, run_id);
    match plan.rooms {
        1 => vec![base.into()],
        rooms => (1..=rooms).map(|room| format!("{base}-{room}").into()).collect(),
    }
}

/// What all identities of this run's publishers begin with.
pub(crate) fn own_publishers(run_id: &str) -> String {
    format!("stampede-{run_id}-pub-")
}

/// All publishers, room by room in turn.
pub(crate) fn publishers(
    plan: &Plan,
    run_id: &str,
    rooms: &[Rc<str>],
    seed: u64,
) -> Vec<CastMember> {
    let mut cast = Vec::new();
    for number in 0..plan.publishers() {
        for (room_number, room) in rooms.iter().enumerate() {
            let identity = format!("{}{}-{number}", own_publishers(run_id), room_number + 1);
            let phase = phase(seed, cast.len() as u64);
            let (mut announced, mut sent) = (Vec::new(), Vec::new());
            if number < plan.video_publishers {
                let track = video_track(&identity, &plan.video_layers, phase);
                announced.push(announced_video(&track));
                sent.push(track);
            }
            if let Some(clip) = plan.audio_clip.as_ref().filter(|_| number < plan.audio_publishers)
            {
                let track = audio_track(&identity, clip, phase);
                announced.push(announced_audio(&track));
                sent.push(track);
            }
            cast.push(CastMember {
                identity,
                room: Rc::clone(room),
                role: Role::Publisher { tracks: announced },
                media: Media::Publisher { tracks: sent },
            });
        }
    }
    cast
}

/// All subscribers, room by room in turn, so that rooms fill evenly; the first ones record.
pub(crate) fn subscribers(plan: &Plan, run_id: &str, rooms: &[Rc<str>]) -> Vec<CastMember> {
    let recording = plan.record.as_ref().map_or(0, |record| record.subscribers as usize);
    let quality = match plan.resolution {
        Resolution::High => Quality::High,
        Resolution::Medium => Quality::Medium,
        Resolution::Low => Quality::Low,
    };
    let mut cast = Vec::new();
    for number in 0..plan.subscribers {
        for (room_number, room) in rooms.iter().enumerate() {
            cast.push(CastMember {
                identity: format!("stampede-{run_id}-sub-{}-{number}", room_number + 1),
                room: Rc::clone(room),
                role: Role::Subscriber { subscription: Subscription::Auto, quality },
                media: Media::Subscriber { record: cast.len() < recording },
            });
        }
    }
    cast
}

/// Where in its clip a publisher begins, 0 to 1: spreads the keyframes of many publishers of one
/// clip. SplitMix64 of seed and number.
fn phase(seed: u64, number: u64) -> f64 {
    let mut z = seed.wrapping_add((number + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

fn offset(clip: &MediaClip, phase: f64) -> Duration {
    Duration::from_secs_f64(clip.duration_seconds() * phase)
}

fn video_track(identity: &str, clips: &[Arc<MediaClip>], phase: f64) -> PublishTrack {
    let simulcast = clips.len() > 1;
    let layers = clips.iter().zip(LAYERS).map(|(clip, (rid, _))| PublishLayer {
        rid: simulcast.then_some(rid),
        clip: Arc::clone(clip),
    });
    PublishTrack {
        cid: format!("{identity}-video"),
        kind: MediaKind::Video,
        layers: layers.collect(),
        start_offset: clips.first().map_or(Duration::ZERO, |clip| offset(clip, phase)),
    }
}

fn audio_track(identity: &str, clip: &Arc<MediaClip>, phase: f64) -> PublishTrack {
    PublishTrack {
        cid: format!("{identity}-audio"),
        kind: MediaKind::Audio,
        layers: vec![PublishLayer { rid: None, clip: Arc::clone(clip) }],
        start_offset: offset(clip, phase),
    }
}

fn announced_video(track: &PublishTrack) -> LocalTrack {
    let qualities: &[(&str, Quality)] = match track.layers.len() {
        1 => &LAYERS[2..],
        _ => &LAYERS,
    };
    let layers: Vec<LocalLayer> = track
        .layers
        .iter()
        .zip(qualities)
        .map(|(layer, (_, quality))| LocalLayer {
            quality: *quality,
            width: layer.clip.width.into(),
            height: layer.clip.height.into(),
            bitrate_bps: layer.clip.bitrate_bps() as u32,
        })
        .collect();
    let full = layers.last();
    LocalTrack {
        cid: track.cid.clone(),
        name: "video".to_owned(),
        kind: TrackKind::Video,
        codec: "vp8".to_owned(),
        width: full.map_or(0, |layer| layer.width),
        height: full.map_or(0, |layer| layer.height),
        layers,
    }
}

fn announced_audio(track: &PublishTrack) -> LocalTrack {
    LocalTrack {
        cid: track.cid.clone(),
        name: "audio".to_owned(),
        kind: TrackKind::Audio,
        codec: "opus".to_owned(),
        width: 0,
        height: 0,
        layers: Vec::new(),
    }
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

    #[test]
    fn rooms_fill_evenly_and_identities_are_unique() {
        let plan = plan(&[
            "--rooms=2",
            "--subscribers=3",
            "--video-publishers=1",
            "--audio-publishers=2",
            "--room=hall",
        ]);
        let rooms = rooms(&plan, "ab");
        assert_eq!(rooms.iter().map(|room| &**room).collect::<Vec<_>>(), ["hall-1", "hall-2"]);
        let publishers = publishers(&plan, "ab", &rooms, 1);
        let subscribers = subscribers(&plan, "ab", &rooms);
        assert_eq!((publishers.len(), subscribers.len()), (4, 6));
        let names: std::collections::HashSet<_> =
            publishers.iter().chain(&subscribers).map(|role| role.identity.clone()).collect();
        assert_eq!(names.len(), 10);
        assert_eq!(subscribers[0].identity, "stampede-ab-sub-1-0");
        assert_eq!(&*subscribers[1].room, "hall-2");
        let tracks = |role: &CastMember| match &role.media {
            Media::Publisher { tracks } => tracks.len(),
            Media::Subscriber { .. } => 0,
        };
        assert_eq!(publishers.iter().map(tracks).collect::<Vec<_>>(), [2, 2, 1, 1]);
    }

    #[test]
    fn simulcast_is_announced_lowest_layer_first() {
        let simulcast = plan(&[]);
        let rooms = rooms(&simulcast, "ab");
        let [publisher] = &publishers(&simulcast, "ab", &rooms, 1)[..] else { panic!() };
        let Role::Publisher { tracks } = &publisher.role else { panic!() };
        let qualities: Vec<_> = tracks[0].layers.iter().map(|layer| layer.quality).collect();
        assert_eq!(qualities, [Quality::Low, Quality::Medium, Quality::High]);
        assert_eq!((tracks[0].width, tracks[0].height), (1280, 720));
        let Media::Publisher { tracks: sent } = &publisher.media else { panic!() };
        let rids: Vec<_> = sent[0].layers.iter().map(|layer| layer.rid).collect();
        assert_eq!(rids, [Some("q"), Some("h"), Some("f")]);
        assert_eq!(sent[0].cid, tracks[0].cid);

        let single = plan(&["--no-simulcast"]);
        let [publisher] = &publishers(&single, "ab", &rooms, 1)[..] else { panic!() };
        let Media::Publisher { tracks: sent } = &publisher.media else { panic!() };
        assert_eq!((sent[0].layers.len(), sent[0].layers[0].rid), (1, None));
    }

    #[test]
    fn only_the_asked_for_number_records() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().display().to_string();
        let plan = plan(&["--record", &dir, "--record-subscribers", "2", "--subscribers", "5"]);
        let cast = subscribers(&plan, "ab", &rooms(&plan, "ab"));
        let records = |role: &&CastMember| matches!(role.media, Media::Subscriber { record: true });
        assert_eq!(cast.iter().filter(records).count(), 2);
    }

    #[test]
    fn phases_are_spread_and_repeat_with_the_seed() {
        let phases: Vec<f64> = (0..100).map(|number| phase(7, number)).collect();
        assert!(phases.iter().all(|phase| (0.0..1.0).contains(phase)));
        let mean = phases.iter().sum::<f64>() / 100.0;
        assert!((0.4..0.6).contains(&mean), "{mean}");
        assert_eq!(phase(7, 3), phases[3]);
        assert_ne!(phase(8, 3), phases[3]);
    }
}
