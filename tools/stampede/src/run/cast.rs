//! Who takes part: every participant of a run with its name, room and tracks.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use stampede_core::{MediaKind, PublishLayer, PublishTrack, SpeakingTurns};
use stampede_media::{Codec, MediaClip};
use stampede_signaling::session::{LocalLayer, LocalTrack, Quality, Role, Subscription, TrackKind};

use super::cohorts::Cohorts;
use super::participant::Media;
use crate::flags::Plan;
use crate::flags::cohort;
use crate::flags::shape::{RoomPlan, SubscribeMode};
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
    /// Joins without anybody being told.
    pub hidden: bool,
    /// Its part of the subscribers: index in [`Cohorts`], and name; `None` for the rest.
    pub cohort: (u16, Option<String>),
    /// Tracks it should receive, video and audio; `None` where that is not known.
    pub tracks: [Option<u32>; 2],
}

/// What all room names begin with.
pub(crate) fn room_base(plan: &Plan, run_id: &str) -> String {
    plan.room.clone().unwrap_or_else(|| format!("stampede-{run_id}"))
}

/// Names of the rooms.
pub(crate) fn rooms(plan: &Plan, run_id: &str) -> Vec<Rc<str>> {
    let base = room_base(plan, run_id);
    let name = |(index, room): (usize, &RoomPlan)| match (&room.name, plan.rooms) {
        (Some(name), _) => name.as_str().into(),
        (None, 1) => base.as_str().into(),
        (None, _) => format!("{base}-{}", index + 1).into(),
    };
    plan.shape.rooms.iter().enumerate().map(name).collect()
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
    for number in 0..most(plan, RoomPlan::publishers) {
        for (room_number, (room, own)) in rooms.iter().zip(&plan.shape.rooms).enumerate() {
            if number >= own.publishers() {
                continue;
            }
            let identity = format!("{}{}-{number}", own_publishers(run_id), room_number + 1);
            let phase = phase(seed, cast.len() as u64);
            let (mut announced, mut sent) = (Vec::new(), Vec::new());
            if number < own.video_publishers {
                let track = video_track(&identity, &plan.video_layers, phase);
                announced.push(announced_video(&track));
                sent.push(track);
            }
            if let Some(clip) = plan.audio_clip.as_ref().filter(|_| number < own.audio_publishers) {
                let mut track = audio_track(&identity, clip, phase);
                track.speaking = plan.shape.simulate_speakers.then_some(SpeakingTurns {
                    speaker: number,
                    speakers: own.audio_publishers,
                    seed: seed.wrapping_add(room_number as u64),
                });
                announced.push(announced_audio(&track));
                sent.push(track);
            }
            cast.push(CastMember {
                identity,
                room: Rc::clone(room),
                role: Role::Publisher { tracks: announced },
                media: Media::Publisher { tracks: sent },
                hidden: false,
                cohort: (0, None),
                tracks: [None; 2],
            });
        }
    }
    cast
}

/// All subscribers, room by room in turn, so that rooms fill evenly; the first ones record.
pub(crate) fn subscribers(
    plan: &Plan,
    run_id: &str,
    rooms: &[Rc<str>],
    parts: &Cohorts,
) -> Vec<CastMember> {
    let recording = plan.record.as_ref().map_or(0, |record| record.subscribers as usize);
    let cohorts = &plan.shape.cohorts;
    let assigned = cohort::assign(cohorts, plan.shape.subscribers());
    let subscription = subscription(plan);
    let mut cast = Vec::with_capacity(assigned.len());
    for number in 0..most(plan, |room| room.subscribers) {
        for (room_number, (room, own)) in rooms.iter().zip(&plan.shape.rooms).enumerate() {
            if number >= own.subscribers {
                continue;
            }
            let identity = format!("stampede-{run_id}-sub-{}-{number}", room_number + 1);
            let assigned = assigned[cast.len()];
            let part = parts.index_of(assigned, &identity);
            let cohort = assigned.map(|index| &cohorts[index]);
            let resolution = cohort.and_then(|cohort| cohort.resolution).unwrap_or(own.resolution);
            let record = cast.len() < recording || cohort.is_some_and(|cohort| cohort.record);
            cast.push(CastMember {
                identity,
                room: Rc::clone(room),
                role: Role::Subscriber { subscription, quality: quality(resolution) },
                media: Media::Subscriber { record },
                hidden: plan.shape.hidden,
                cohort: (part, parts.name(part).map(str::to_owned)),
                tracks: tracks(plan, own),
            });
        }
    }
    cast
}

/// The highest number of any room.
fn most(plan: &Plan, number: impl Fn(&RoomPlan) -> u32) -> u32 {
    plan.shape.rooms.iter().map(number).max().unwrap_or(0)
}

fn quality(resolution: Resolution) -> Quality {
    match resolution {
        Resolution::High => Quality::High,
        Resolution::Medium => Quality::Medium,
        Resolution::Low => Quality::Low,
    }
}

fn subscription(plan: &Plan) -> Subscription {
    let auto = plan.shape.subscribe_mode == SubscribeMode::Auto;
    match plan.shape.layout {
        Some(layout) => Subscription::Layout { layout: layout.layout(), auto },
        None if auto => Subscription::Auto,
        None => Subscription::Manual { audio: true, video: true },
    }
}

/// Tracks that a subscriber of this room should receive. Who is shown when there are more publishers
/// than places depends on who came first: it is known only if all of them send the same.
fn tracks(plan: &Plan, room: &RoomPlan) -> [Option<u32>; 2] {
    let (video, audio) = (room.video_publishers, room.audio_publishers);
    let Some(layout) = plan.shape.layout else { return [Some(video), Some(audio)] };
    let places = layout.layout().participants_max() as u32;
    let shown = |tracks: u32| match room.publishers() <= places {
        true => Some(tracks),
        false => (tracks == room.publishers()).then_some(places),
    };
    let heard = match plan.shape.subscribe_mode {
        SubscribeMode::Auto => Some(audio),
        SubscribeMode::Manual => shown(audio),
    };
    [shown(video), heard]
}

/// Where in its clip a publisher begins, 0 to 1: spreads the keyframes of many publishers of one
/// clip. Forked, because generators of neighbouring seeds begin alike.
fn phase(seed: u64, number: u64) -> f64 {
    fastrand::Rng::with_seed(seed.wrapping_add(number)).fork().f64()
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
        speaking: None,
    }
}

fn audio_track(identity: &str, clip: &Arc<MediaClip>, phase: f64) -> PublishTrack {
    PublishTrack {
        cid: format!("{identity}-audio"),
        kind: MediaKind::Audio,
        layers: vec![PublishLayer { rid: None, clip: Arc::clone(clip) }],
        start_offset: offset(clip, phase),
        speaking: None,
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
        codec: codec_name(track.video_codec()).to_owned(),
        width: full.map_or(0, |layer| layer.width),
        height: full.map_or(0, |layer| layer.height),
        layers,
    }
}

/// As LiveKit names it in `SimulcastCodec.codec`.
fn codec_name(codec: Option<Codec>) -> &'static str {
    match codec {
        Some(Codec::Vp9) => "vp9",
        Some(Codec::H264) => "h264",
        Some(Codec::Av1) => "av1",
        _ => "vp8",
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

    fn cast_of(plan: &Plan, rooms: &[Rc<str>]) -> Vec<CastMember> {
        subscribers(plan, "ab", rooms, &Cohorts::of(plan, 1))
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
        let subscribers = cast_of(&plan, &rooms);
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
    fn rooms_may_differ_and_cohorts_take_their_share() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.toml");
        let text = "subscribers = 4\nrooms = 3\n[[room]]\nname = \"big\"\nsubscribers = 12\n\
                    video_publishers = 2\n[[room]]\nvideo_resolution = \"medium\"\n\
                    [[cohort]]\nname = \"mobile\"\nshare = 0.5\nvideo_resolution = \"low\"\n";
        std::fs::write(&path, text).unwrap();
        let plan = plan(&["--scenario", &path.display().to_string(), "--room=hall"]);
        let rooms = rooms(&plan, "ab");
        assert_eq!(
            rooms.iter().map(|room| &**room).collect::<Vec<_>>(),
            ["big", "hall-2", "hall-3"]
        );
        assert_eq!(publishers(&plan, "ab", &rooms, 1).len(), 4);
        let cast = cast_of(&plan, &rooms);
        let mobile = cast.iter().filter(|member| member.cohort.1.as_deref() == Some("mobile"));
        assert_eq!((cast.len(), mobile.clone().count()), (20, 10));
        let asks = |member: &CastMember| match member.role {
            Role::Subscriber { quality, .. } => quality,
            Role::Publisher { .. } => panic!(),
        };
        assert!(mobile.clone().all(|member| asks(member) == Quality::Low));
        let rest = cast.iter().filter(|member| member.cohort == (0, None));
        for member in rest {
            let middle = &*member.room == "hall-2";
            assert_eq!(asks(member), if middle { Quality::Medium } else { Quality::High });
        }
        assert_eq!(cast[0].tracks, [Some(2), Some(1)]);
        assert_eq!(cast[1].tracks, [Some(1), Some(1)]);
    }

    #[test]
    fn a_layout_shows_what_it_has_places_for() {
        let expected = |args: &[&str]| {
            let plan = plan(args);
            cast_of(&plan, &rooms(&plan, "ab"))[0].tracks
        };
        let eight = ["--video-publishers=8", "--audio-publishers=8", "--layout=speaker"];
        assert_eq!(expected(&eight), [Some(6), Some(6)]);
        let auto = [&eight[..], &["--subscribe-mode=auto"]].concat();
        assert_eq!(expected(&auto), [Some(6), Some(8)]);
        let mixed = ["--video-publishers=3", "--audio-publishers=8", "--layout=speaker"];
        assert_eq!(expected(&mixed), [None, Some(6)]);
        assert_eq!(expected(&["--video-publishers=3", "--layout=3x3"]), [Some(3), Some(1)]);
    }

    #[test]
    fn only_the_asked_for_number_records() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().display().to_string();
        let plan = plan(&["--record", &dir, "--record-subscribers", "2", "--subscribers", "5"]);
        let cast = cast_of(&plan, &rooms(&plan, "ab"));
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
