//! Who takes part: every participant of a run with its name, room and tracks.

mod data_rooms;
mod part;
mod tracks;

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use stampede_core::{PeerRole, Receives, SpeakingTurns, VideoCodecs};
use stampede_impair::seeded;
use stampede_signaling::session::{Quality, Role, Subscription};
use stampede_signaling::{Profile, Token};

use self::data_rooms::DataRooms;
pub use self::part::{Part, Places};
use self::tracks::{AudioOf, sends, shares_screen, video_track};
use crate::codec_mix::CodecTurns;
use crate::cohort_spec::{CohortSpec, Counted, assign};
use crate::people;
use crate::shape::Place;
use crate::values::Resolution;
use crate::{Clips, CodecList, OwnIdentities, RoomSpec, Scenario, SubscribeMode};

/// A participant, before it is started.
#[derive(Debug, Clone)]
pub struct ParticipantSpec {
    /// Its identity on the server; further tries get a suffix.
    pub identity: String,
    /// Its room.
    pub room: Rc<str>,
    /// Signalling role.
    pub role: Role,
    /// Media role.
    pub media: PeerRole,
    /// Joins without anybody being told.
    pub hidden: bool,
    /// Its part of the subscribers: index in [`Cohorts`](crate::Cohorts).
    pub cohort: u16,
    /// What that is called; `None` for the rest.
    pub cohort_name: Option<String>,
    /// Tracks it should receive, video and audio; `None` where that is not known.
    pub tracks: [Option<u32>; 2],
    /// What its join token says besides.
    pub profile: Arc<Profile>,
    /// A join token that somebody else has made.
    pub token: Option<Token>,
    /// From one update that it makes of itself to the next.
    pub updates_every: Option<Duration>,
}

impl ParticipantSpec {
    /// True for who receives.
    pub fn receives(&self) -> bool {
        self.media.receives.is_some()
    }

    /// True for who subscribes to all audio that there is.
    pub fn hears_all(&self) -> bool {
        let receives = self.role.receives.map(|receives| receives.subscription);
        receives.is_some_and(|subscription| match subscription {
            Subscription::Auto => true,
            Subscription::Manual { audio, .. } => audio,
            Subscription::Layout { auto, .. } => auto,
        })
    }

    /// True for who sends media.
    pub fn publishes(&self) -> bool {
        !self.media.tracks.is_empty()
    }

    /// True for who calls others.
    pub fn calls(&self) -> bool {
        self.media.rpc.as_ref().is_some_and(|rpc| rpc.calls.is_some())
    }

    /// True for who sends data messages.
    pub fn sends_data(&self) -> bool {
        self.media.data.as_ref().is_some_and(|data| data.sends.is_some())
    }
}

/// All participants of a run and their rooms.
#[derive(Debug, Clone)]
pub struct Participants {
    /// What all room names begin with.
    pub room_base: String,
    /// Names of the rooms.
    pub rooms: Vec<Rc<str>>,
    /// The identities of this run's participants.
    pub own: Arc<OwnIdentities>,
    /// Publishers in the order in which they join: room by room in turn.
    pub publishers: Vec<ParticipantSpec>,
    /// Who send and receive, in the order in which they join: room by room in turn.
    pub participants: Vec<ParticipantSpec>,
    /// Subscribers in the order in which they join: room by room in turn, so that rooms fill
    /// evenly. The first ones of all who receive record.
    pub subscribers: Vec<ParticipantSpec>,
    /// Which of the run's these are, where other hosts have the others; `None`: all of them.
    pub part: Option<Part>,
}

impl Participants {
    /// Of a scenario that publishes these clips. `run_id` is a part of every name, `seed` decides
    /// where in their clips publishers begin, and whom each `--impair` chooses.
    pub fn new(scenario: &Scenario, clips: &Clips, run_id: &str, seed: u64) -> Self {
        let room_base = scenario.room.clone().unwrap_or_else(|| format!("stampede-{run_id}"));
        let rooms = rooms(scenario, &room_base);
        let own = format!("stampede-{run_id}-");
        let mut participants = receivers(scenario, &own, &rooms, seed);
        let (data, senders) = DataRooms::new(scenario, &participants, run_id, seed);
        let mut codecs = CodecTurns::default();
        let publishers = publishers(scenario, clips, &mut codecs, &own, &rooms, &data, seed);
        for (one, sender) in participants.iter_mut().zip(senders) {
            data.joins(&mut one.spec, one.place.room, one.cohort, sender);
        }
        let subscribers = participants.split_off(scenario.shape.participants());
        for (phase_number, one) in (publishers.len() as u64..).zip(&mut participants) {
            let Place { room, number: place } = one.place;
            let own = &scenario.shape.rooms[room];
            let phase = phase(seed, phase_number);
            let tracks = own.participant_tracks;
            let video = tracks.video().then(|| {
                let layers = clips.layers(scenario.video_codec(own), &mut codecs);
                video_track(&one.spec.identity, layers, phase)
            });
            let clip = clips.audio.as_ref().filter(|_| tracks.audio());
            let audio = clip.map(|clip| AudioOf {
                clip,
                turns: turns(scenario, seed, room, own.audio_publishers + place),
                options: scenario.audio_options,
            });
            sends(&mut one.spec, video, audio, (scenario, clips), phase);
            if own.participant_shares(place) {
                shares_screen(&mut one.spec, clips, scenario, phase);
            }
        }
        let mut receivers = [participants, subscribers];
        let mut publishers = publishers;
        if let Some(rpc) = &scenario.rpc {
            let mut numbers = HashMap::new();
            let mut callers = Counted::new(&scenario.shape.cohorts, |cohort| cohort.rpc.callers);
            let others = receivers.iter_mut().flatten().map(|one| (one.cohort, &mut one.spec));
            for (cohort, spec) in publishers.iter_mut().map(|spec| (None, spec)).chain(others) {
                let number: &mut u32 = numbers.entry(Rc::clone(&spec.room)).or_default();
                // Who calls anyway is none of those that a cohort has besides.
                let calls = match *number < rpc.callers {
                    true => Some(rpc.of_run()),
                    false => cohort
                        .filter(|cohort| callers.takes(*cohort))
                        .map(|cohort| rpc.of_cohort(&scenario.shape.cohorts[cohort])),
                };
                spec.media.rpc = Some(rpc.role(&spec.identity, calls, run_id, seed));
                spec.role.rpc = true;
                *number += 1;
            }
        }
        let specs = |all: Vec<Receiver>| all.into_iter().map(|one| one.spec).collect();
        let [participants, subscribers] = receivers.map(specs);
        let own = OwnIdentities::prefixed(own).into();
        Self { room_base, rooms, own, publishers, participants, subscribers, part: None }
    }
}

/// Somebody who receives.
struct Receiver {
    place: Place,
    /// Its cohort, if it is in one.
    cohort: Option<usize>,
    /// It sends too.
    publishes: bool,
    spec: ParticipantSpec,
}

/// When this one of a room's audio senders speaks, if they take turns.
fn turns(scenario: &Scenario, seed: u64, room: usize, speaker: u32) -> Option<SpeakingTurns> {
    scenario.shape.simulate_speakers.then(|| SpeakingTurns {
        speaker,
        speakers: scenario.shape.rooms[room].audio_senders(),
        seed: seed.wrapping_add(room as u64),
    })
}

fn rooms(scenario: &Scenario, base: &str) -> Vec<Rc<str>> {
    let name = |(index, room): (usize, &RoomSpec)| match (&room.name, scenario.rooms) {
        (Some(name), _) => name.as_str().into(),
        (None, 1) => base.into(),
        (None, _) => format!("{base}-{}", index + 1).into(),
    };
    scenario.shape.rooms.iter().enumerate().map(name).collect()
}

fn publishers<'a>(
    scenario: &'a Scenario,
    clips: &Clips,
    codecs: &mut CodecTurns<'a>,
    own_identities: &str,
    rooms: &[Rc<str>],
    data: &DataRooms<'_>,
    seed: u64,
) -> Vec<ParticipantSpec> {
    let mut all = Vec::new();
    for number in 0..most(scenario, RoomSpec::publishers) {
        for (room_number, (room, own)) in rooms.iter().zip(&scenario.shape.rooms).enumerate() {
            if number >= own.publishers() {
                continue;
            }
            let identity = format!("{own_identities}pub-{}-{number}", room_number + 1);
            let phase = phase(seed, all.len() as u64);
            let video = number < own.video_publishers;
            let video = video.then(|| {
                video_track(&identity, clips.layers(scenario.video_codec(own), codecs), phase)
            });
            let clip = clips.audio.as_ref().filter(|_| number < own.audio_publishers);
            let audio = clip.map(|clip| AudioOf {
                clip,
                turns: turns(scenario, seed, room_number, number),
                options: scenario.audio_options,
            });
            let mut spec = ParticipantSpec {
                identity,
                room: Rc::clone(room),
                role: Role::default(),
                media: PeerRole::default(),
                hidden: false,
                cohort: 0,
                cohort_name: None,
                tracks: [None; 2],
                profile: Arc::clone(&scenario.profile),
                token: None,
                updates_every: every(scenario.metadata_updates_per_second),
            };
            sends(&mut spec, video, audio, (scenario, clips), phase);
            if own.publisher_shares(number) {
                shares_screen(&mut spec, clips, scenario, phase);
            }
            let sender = Some(own.data_sender(number)).filter(|it| *it < own.data_publishers);
            data.joins(&mut spec, room_number, None, sender);
            all.push(spec);
        }
    }
    all
}

/// Everybody who receives, first those who send too, with nothing to send yet.
fn receivers(
    scenario: &Scenario,
    own_identities: &str,
    rooms: &[Rc<str>],
    seed: u64,
) -> Vec<Receiver> {
    let recording = scenario.record.as_ref().map_or(0, |record| record.subscribers as usize);
    let (parts, cohorts) = (&scenario.cohorts, &scenario.shape.cohorts);
    let assigned = assign(cohorts, scenario.shape.receivers());
    // One for all of a cohort.
    let profile = |cohort: &CohortSpec| match people::profile_of(cohort, &scenario.profile) {
        Some(own) => Arc::new(own),
        None => Arc::clone(&scenario.profile),
    };
    let profiles: Vec<_> = cohorts.iter().map(profile).collect();
    let subscription = subscription(scenario);
    let mut all = Vec::with_capacity(assigned.len());
    let (places, both) = (scenario.shape.places(), scenario.shape.participants());
    for (place, assigned) in places.into_iter().zip(assigned) {
        let Place { room: room_number, number } = place;
        let (room, own) = (&rooms[room_number], &scenario.shape.rooms[room_number]);
        let publishes = all.len() < both;
        let kind = if publishes { "part" } else { "sub" };
        let identity = format!("{own_identities}{kind}-{}-{number}", room_number + 1);
        let part = parts.index_of(assigned, &identity, seed);
        let cohort = assigned.map(|index| &cohorts[index]);
        let resolution = cohort.and_then(|cohort| cohort.resolution).unwrap_or(own.resolution);
        let profile = assigned.map_or(&scenario.profile, |index| &profiles[index]);
        let codecs = cohort.and_then(|cohort| cohort.subscribe_codecs.as_ref());
        let codecs = codecs.or(scenario.subscribe_codecs.as_ref());
        let codecs = codecs.map_or_else(VideoCodecs::default, CodecList::set);
        let record = all.len() < recording || cohort.is_some_and(|cohort| cohort.record);
        let spec = ParticipantSpec {
            identity,
            room: Rc::clone(room),
            role: Role::subscriber(subscription, quality(resolution)),
            media: PeerRole { receives: Some(Receives { record, codecs }), ..PeerRole::default() },
            hidden: scenario.shape.hidden && !publishes,
            cohort: part,
            cohort_name: parts.name(part).map(str::to_owned),
            tracks: tracks(scenario, own, publishes.then_some(number)),
            profile: Arc::clone(profile),
            token: None,
            updates_every: every(people::updates_of(cohort, scenario.metadata_updates_per_second)),
        };
        all.push(Receiver { place, cohort: assigned, publishes, spec });
    }
    all
}

/// The highest number of any room.
fn most(scenario: &Scenario, number: impl Fn(&RoomSpec) -> u32) -> u32 {
    scenario.shape.rooms.iter().map(number).max().unwrap_or(0)
}

/// The time from one to the next at so many a second.
fn every(per_second: Option<f64>) -> Option<Duration> {
    per_second.map(|rate| Duration::from_secs_f64(1.0 / rate))
}

fn quality(resolution: Resolution) -> Quality {
    match resolution {
        Resolution::High => Quality::High,
        Resolution::Medium => Quality::Medium,
        Resolution::Low => Quality::Low,
    }
}

fn subscription(scenario: &Scenario) -> Subscription {
    if scenario.no_media {
        return Subscription::Manual { audio: false, video: false };
    }
    let auto = scenario.shape.subscribe_mode == SubscribeMode::Auto;
    match scenario.shape.layout {
        Some(layout) => Subscription::Layout { layout: layout.layout(), auto },
        None if auto => Subscription::Auto,
        None => Subscription::Manual { audio: true, video: true },
    }
}

/// Tracks that somebody in this room should receive, who is this one of its participants that
/// publish too or none of them: of all others. Who is shown when there are more than places depends
/// on who came first: it is known only if all of them send the same.
fn tracks(scenario: &Scenario, room: &RoomSpec, participant: Option<u32>) -> [Option<u32>; 2] {
    if scenario.no_media {
        return [Some(0); 2];
    }
    // Who of them is there when is not known before.
    if room.participants > 0 && scenario.audience.stay.is_some() {
        return [None; 2];
    }
    let own = room.participant_tracks;
    let publishes = participant.is_some();
    let shares = participant.is_some_and(|number| room.participant_shares(number));
    let screens = room.screen_share_publishers - u32::from(shares);
    let sounds = if scenario.shape.screen_share_audio { screens } else { 0 };
    let video = room.video_senders() - u32::from(publishes && own.video()) + screens;
    let audio = room.audio_senders() - u32::from(publishes && own.audio()) + sounds;
    let senders = room.senders() - u32::from(publishes);
    let Some(layout) = scenario.shape.layout else { return [Some(video), Some(audio)] };
    let places = layout.layout().participants_max() as u32;
    // A shared screen takes a place of its own, and who has none left depends on who came first.
    let shown = |tracks: u32| match senders.max(video) <= places {
        true => Some(tracks),
        false => (tracks == senders && screens == 0).then_some(places),
    };
    let heard = match scenario.shape.subscribe_mode {
        SubscribeMode::Auto => Some(audio),
        SubscribeMode::Manual => shown(audio),
    };
    [shown(video), heard]
}

/// Where in its clip a publisher begins, 0 to 1: spreads the keyframes of many publishers of one
/// clip.
fn phase(seed: u64, number: u64) -> f64 {
    seeded(seed, &format!("phase {number}")).f64()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use stampede_media::{Codec, builtin};
    use stampede_signaling::session::DataTracks;

    use super::*;
    use crate::{
        CohortProfile, CohortSize, CohortSpec, DataTrackSubscribe, Draft, LayoutChoice,
        ParticipantTracks, RoomDraft, values,
    };

    fn clips(scenario: &Scenario) -> Clips {
        let arcs = |clips: Vec<_>| -> Vec<_> { clips.into_iter().map(Arc::new).collect() };
        let layers = |codec| {
            let mut video = builtin::video(codec).unwrap();
            if scenario.video.as_ref().is_some_and(|video| video.single_layer) {
                video.drain(..video.len() - 1);
            }
            arcs(video)
        };
        let others = [Codec::H264, Codec::Vp9].map(layers);
        Clips {
            video: layers(Codec::Vp8),
            more_video: others.to_vec(),
            audio: Some(Arc::new(builtin::audio().unwrap())),
            backup: layers(Codec::Vp8),
            screen: arcs(builtin::screen_share(Codec::Vp8).unwrap()),
            screen_backup: None,
            screen_audio: scenario
                .shape
                .screen_share_audio
                .then(|| Arc::new(builtin::audio().unwrap())),
        }
    }

    /// The first publishers share, then the participants, then publishers that send nothing else; who
    /// receives expects the screens of all others.
    #[test]
    fn screens_are_shared_by_the_first_and_expected_of_the_others() {
        let sources = |spec: &ParticipantSpec| -> Vec<&str> {
            spec.role.tracks.iter().map(|track| track.source.name()).collect()
        };
        let draft = |screens| Draft {
            video_publishers: Some(1),
            audio_publishers: Some(0),
            participants: Some(2),
            subscribers: Some(1),
            screen_share_publishers: screens,
            screen_share_audio: true,
            ..Draft::default()
        };
        let all = participants(draft(2));
        let both = ["camera", "screen_share", "screen_share_audio"];
        assert_eq!(sources(&all.publishers[0]), both);
        let everything = ["camera", "microphone", "screen_share", "screen_share_audio"];
        assert_eq!(sources(&all.participants[0]), everything);
        assert_eq!(sources(&all.participants[1]), everything[..2]);
        assert_eq!(all.subscribers[0].tracks, [Some(5), Some(4)]);
        assert_eq!(all.participants[0].tracks, [Some(3), Some(2)], "not its own");
        assert_eq!(all.participants[1].tracks, [Some(4), Some(3)]);
        let screen = &all.publishers[0].role.tracks[1];
        let layers: Vec<_> = screen.layers.iter().map(|it| (it.quality, it.height)).collect();
        assert_eq!(layers, [(Quality::Low, 540), (Quality::Medium, 1_080)]);
        assert!(!all.publishers[0].role.tracks[2].red && !all.publishers[0].role.tracks[2].dtx);
        let alone = Draft { video_publishers: Some(0), participants: None, ..draft(1) };
        let all = participants(Draft { no_simulcast: true, ..alone });
        let layers = &all.publishers[0].role.tracks[0].layers;
        assert_eq!((layers.len(), layers[0].height), (1, 1_080), "without a camera too");
        let all = participants(draft(5));
        assert_eq!(all.publishers.len(), 3);
        assert_eq!(sources(&all.publishers[2]), both[1..]);
        assert_eq!(all.subscribers[0].tracks, [Some(8), Some(7)]);
        // A screen takes a place of its own in what is shown.
        let shown = |layout| {
            let all = participants(Draft { layout: Some(layout), ..draft(2) });
            all.subscribers[0].tracks
        };
        assert_eq!(shown(LayoutChoice::Grid3x3), [Some(5), Some(4)]);
        let pair = Draft { screen_share_audio: true, ..Draft::default() };
        assert!(Scenario::new(pair).unwrap_err().to_string().contains("--screen-share-publishers"));
    }

    fn participants(draft: Draft) -> Participants {
        let scenario = Scenario::new(draft).unwrap();
        Participants::new(&scenario, &clips(&scenario), "ab", 1)
    }

    #[test]
    fn publishers_send_their_rooms_codecs_in_their_shares() {
        let mix = |text: &str| Some(text.parse().unwrap());
        let room = |video_codec| RoomDraft { video_codec, ..RoomDraft::default() };
        let all = participants(Draft {
            rooms: 3,
            video_publishers: Some(2),
            participants: Some(2),
            audio_publishers: Some(0),
            subscribers: Some(1),
            video_codec: mix("vp8:50,h264:50"),
            room_drafts: vec![room(None), room(mix("vp9"))],
            ..Draft::default()
        });
        let codec = |spec: &ParticipantSpec| spec.role.tracks[0].codec.clone();
        let of = |specs: &[ParticipantSpec], room: &str| {
            let own = specs.iter().filter(|spec| spec.room.ends_with(room)).map(codec);
            own.collect::<Vec<_>>()
        };
        let codecs = |room| [of(&all.publishers, room), of(&all.participants, room)].concat();
        assert_eq!(codecs("-2"), ["vp9"; 4]);
        let mut others = [codecs("-1"), codecs("-3")].concat();
        others.sort();
        assert_eq!(others, ["h264", "h264", "h264", "h264", "vp8", "vp8", "vp8", "vp8"]);
        for spec in all.publishers.iter().chain(&all.participants) {
            let track = &spec.media.tracks[0];
            assert_eq!(values::codec_name(track.video_codec().unwrap()), codec(spec));
            assert_eq!(track.layers.len(), 3);
        }
    }

    #[test]
    fn rooms_fill_evenly_and_identities_are_unique() {
        let all = participants(Draft {
            rooms: 2,
            subscribers: Some(3),
            video_publishers: Some(1),
            audio_publishers: Some(2),
            room: Some("hall".to_owned()),
            ..Draft::default()
        });
        assert_eq!(all.rooms.iter().map(|room| &**room).collect::<Vec<_>>(), ["hall-1", "hall-2"]);
        assert_eq!((all.publishers.len(), all.subscribers.len()), (4, 6));
        let everybody = all.publishers.iter().chain(&all.subscribers);
        let names: HashSet<_> = everybody.map(|one| one.identity.clone()).collect();
        assert_eq!(names.len(), 10);
        assert_eq!(all.subscribers[0].identity, "stampede-ab-sub-1-0");
        assert_eq!(&*all.subscribers[1].room, "hall-2");
        assert!(all.publishers.iter().all(|one| all.own.has(&one.identity)));
        let tracks = |one: &ParticipantSpec| one.media.tracks.len();
        assert_eq!(all.publishers.iter().map(tracks).collect::<Vec<_>>(), [2, 2, 1, 1]);
    }

    #[test]
    fn a_meeting_is_as_many_connections_as_people_and_nobody_expects_its_own() {
        let all = participants(Draft { participants: Some(3), rooms: 2, ..Draft::default() });
        assert_eq!((all.publishers.len(), all.subscribers.len()), (0, 0), "a meeting alone");
        let identities: Vec<_> = all.participants.iter().map(|one| &*one.identity).collect();
        assert_eq!(
            identities[..3],
            ["stampede-ab-part-1-0", "stampede-ab-part-2-0", "stampede-ab-part-1-1"]
        );
        for one in &all.participants {
            assert!(one.receives() && one.publishes());
            assert_eq!((one.role.tracks.len(), one.media.tracks.len()), (2, 2));
            assert_eq!(one.tracks, [Some(2), Some(2)], "of the two others");
        }
        // Beside publishers and subscribers, and in a room of its own.
        let all = participants(Draft {
            video_publishers: Some(1),
            subscribers: Some(2),
            participants: Some(2),
            participant_tracks: ParticipantTracks::Audio,
            room_drafts: vec![
                RoomDraft::default(),
                RoomDraft { participants: Some(0), ..RoomDraft::default() },
            ],
            ..Draft::default()
        });
        let counts = (all.publishers.len(), all.participants.len(), all.subscribers.len());
        assert_eq!(counts, (2, 2, 4));
        assert_eq!(all.participants[0].tracks, [Some(1), Some(1)]);
        assert_eq!(all.subscribers[0].tracks, [Some(1), Some(2)]);
        assert_eq!(all.subscribers[1].tracks, [Some(1), Some(0)]);
    }

    #[test]
    fn participants_are_parts_of_cohorts_and_record_first() {
        let cohort = CohortSpec::new("half".to_owned(), CohortSize::Share(0.5));
        let all = participants(Draft {
            participants: Some(4),
            subscribers: Some(4),
            cohorts: vec![cohort],
            record: Some("x".into()),
            record_subscribers: Some(2),
            ..Draft::default()
        });
        let half = |all: &[ParticipantSpec]| {
            all.iter().filter(|one| one.cohort_name.as_deref() == Some("half")).count()
        };
        assert_eq!((half(&all.participants), half(&all.subscribers)), (2, 2));
        let records =
            |one: &ParticipantSpec| one.media.receives.is_some_and(|receives| receives.record);
        let recording: Vec<_> = all.participants.iter().map(records).collect();
        assert_eq!(recording, [true, true, false, false]);
    }

    #[test]
    fn what_participants_need_is_checked() {
        let draft = Draft { participant_tracks: ParticipantTracks::Audio, ..Draft::default() };
        let error = Scenario::new(draft).unwrap_err().to_string();
        assert!(error.contains("add --participants"), "{error}");
    }

    #[test]
    fn simulcast_is_announced_lowest_layer_first() {
        let [publisher] = &participants(Draft::default()).publishers[..] else { panic!() };
        let tracks = &publisher.role.tracks;
        let qualities: Vec<_> = tracks[0].layers.iter().map(|layer| layer.quality).collect();
        assert_eq!(qualities, [Quality::Low, Quality::Medium, Quality::High]);
        assert_eq!((tracks[0].width, tracks[0].height), (1280, 720));
        let sent = &publisher.media.tracks;
        let rids: Vec<_> = sent[0].layers.iter().map(|layer| layer.rid).collect();
        assert_eq!(rids, [Some("q"), Some("h"), Some("f")]);
        assert_eq!(sent[0].cid, tracks[0].cid);

        let single = participants(Draft { no_simulcast: true, ..Draft::default() });
        let sent = &single.publishers[0].media.tracks;
        assert_eq!((sent[0].layers.len(), sent[0].layers[0].rid), (1, None));
    }

    #[test]
    fn rooms_may_differ_and_cohorts_take_their_share() {
        let all = participants(Draft {
            rooms: 3,
            subscribers: Some(4),
            room: Some("hall".to_owned()),
            room_drafts: vec![
                RoomDraft {
                    name: Some("big".to_owned()),
                    subscribers: Some(12),
                    video_publishers: Some(2),
                    ..RoomDraft::default()
                },
                RoomDraft { video_resolution: Some(Resolution::Medium), ..RoomDraft::default() },
            ],
            cohorts: vec![CohortSpec {
                resolution: Some(Resolution::Low),
                profile: CohortProfile {
                    metadata: Some("on the move".to_owned()),
                    ..CohortProfile::default()
                },
                ..CohortSpec::new("mobile".to_owned(), CohortSize::Share(0.5))
            }],
            ..Draft::default()
        });
        let rooms: Vec<_> = all.rooms.iter().map(|room| &**room).collect();
        assert_eq!(rooms, ["big", "hall-2", "hall-3"]);
        assert_eq!(all.publishers.len(), 4);
        let is_mobile = |one: &&ParticipantSpec| one.cohort_name.as_deref() == Some("mobile");
        let mobile = all.subscribers.iter().filter(is_mobile);
        assert_eq!((all.subscribers.len(), mobile.clone().count()), (20, 10));
        let asks = |one: &ParticipantSpec| one.role.receives.unwrap().quality;
        assert!(mobile.clone().all(|one| asks(one) == Quality::Low));
        assert!(mobile.clone().all(|one| one.profile.metadata == "on the move"));
        let first = &mobile.clone().next().unwrap().profile;
        assert!(mobile.clone().all(|one| Arc::ptr_eq(&one.profile, first)), "one for all");
        for one in all.subscribers.iter().filter(|one| !is_mobile(one)) {
            let middle = &*one.room == "hall-2";
            assert_eq!((one.cohort, one.profile.metadata.as_str()), (0, ""));
            assert_eq!(asks(one), if middle { Quality::Medium } else { Quality::High });
        }
        assert_eq!(all.subscribers[0].tracks, [Some(2), Some(1)]);
        assert_eq!(all.subscribers[1].tracks, [Some(1), Some(1)]);
    }

    #[test]
    fn the_first_of_each_room_call_and_everybody_answers() {
        let rpc = crate::RpcDraft { callers: Some(2), rate: Some(4.0), ..Default::default() };
        let draft = Draft { rooms: 2, subscribers: Some(3), rpc, ..Draft::default() };
        let all = participants(draft.clone());
        let everybody = all.publishers.iter().chain(&all.subscribers);
        assert!(everybody.clone().all(|one| one.role.rpc && one.media.rpc.is_some()));
        let callers = everybody.filter(|one| one.calls());
        let names: Vec<_> = callers.map(|one| one.identity.rsplit("ab-").next().unwrap()).collect();
        assert_eq!(names.len(), 4, "{names:?}");
        assert_eq!(names.iter().filter(|name| name.contains("pub-")).count(), 2, "{names:?}");
        let calls = all.publishers[0].media.rpc.as_ref().unwrap().calls.unwrap();
        assert_eq!(calls.every, Duration::from_millis(250));
        assert!(calls.offset <= calls.every);
        let too_many = crate::RpcDraft { callers: Some(5), ..draft.rpc.clone() };
        let refused = |draft| Scenario::new(draft).unwrap_err().to_string();
        let error = refused(Draft { rpc: too_many, ..draft.clone() });
        assert!(error.contains("a room has but 4 participants"), "{error}");
        // Nobody is told of who is hidden, who can be called by name only.
        let hidden = Draft { hidden: true, ..draft.clone() };
        assert!(refused(hidden.clone()).contains("--rpc-to"));
        let rpc = crate::RpcDraft { to: Some("bot".to_owned()), ..draft.rpc.clone() };
        assert!(Scenario::new(Draft { rpc, ..hidden }).is_ok());
        let grants = vec!["hidden=true".parse().unwrap()];
        let cohorts = vec![CohortSpec {
            profile: CohortProfile { grants, ..CohortProfile::default() },
            ..CohortSpec::new("ghosts".to_owned(), CohortSize::Share(0.5))
        }];
        assert!(refused(Draft { cohorts, ..draft }).contains("--rpc-to"));
    }

    #[test]
    fn who_sends_frames_publishes_a_data_track_and_all_others_want_it() {
        let data = crate::DataDraft {
            publishers: Some(1),
            kinds: Some("track".parse().unwrap()),
            ..Default::default()
        };
        let draft = Draft { subscribers: Some(2), data, ..Draft::default() };
        let all = participants(draft.clone());
        let of = |one: &ParticipantSpec| (one.role.data_track, one.role.data_tracks_of_others);
        assert_eq!(of(&all.publishers[0]), (true, DataTracks::None));
        assert!(all.subscribers.iter().all(|one| of(one) == (false, DataTracks::Auto)));
        // Who shows a layout chooses by itself, unless it is said; and a cohort may do without.
        let layout = Some(LayoutChoice::Speaker);
        let all = participants(Draft { layout, ..draft.clone() });
        assert!(all.subscribers.iter().all(|one| of(one) == (false, DataTracks::Manual)));
        let subscribe = Some(DataTrackSubscribe::None);
        let deaf = CohortSpec {
            data: crate::DataDraft { subscribe, ..Default::default() },
            ..CohortSpec::new("deaf".to_owned(), CohortSize::Count(1))
        };
        let all = participants(Draft { cohorts: vec![deaf], ..draft.clone() });
        let expects = |one: &ParticipantSpec| one.media.data.as_ref().unwrap().expects;
        for one in &all.subscribers {
            let (wants, expected) = match one.cohort_name {
                Some(_) => (DataTracks::None, [false; 3]),
                None => (DataTracks::Auto, [false, false, true]),
            };
            assert_eq!((of(one), expects(one)), ((false, wants), expected));
        }
        let data = crate::DataDraft { kinds: None, ..draft.data };
        let all = participants(Draft { data, ..draft });
        let mut everybody = all.publishers.iter().chain(&all.subscribers);
        assert!(everybody.all(|one| of(one) == (false, DataTracks::None)));
    }

    #[test]
    fn cohorts_and_rooms_send_data_and_updates_of_their_own() {
        let data = crate::DataDraft {
            publishers: Some(2),
            rate: Some(4.0),
            kinds: Some("lossy".parse().unwrap()),
            ..Default::default()
        };
        let rpc = crate::RpcDraft { callers: Some(1), rate: Some(2.0), ..Default::default() };
        let chatty = CohortSpec {
            data,
            rpc,
            metadata_updates_per_second: Some(0.5),
            ..CohortSpec::new("chatty".to_owned(), CohortSize::Count(3))
        };
        let room = RoomDraft { data_publishers: Some(1), ..RoomDraft::default() };
        let all = participants(Draft {
            rooms: 2,
            subscribers: Some(5),
            cohorts: vec![chatty],
            room_drafts: vec![room],
            ..Draft::default()
        });
        let sends = |one: &ParticipantSpec| one.media.data.as_ref().and_then(|data| data.sends);
        let sender = |one: &ParticipantSpec| one.media.data.as_ref().unwrap().sender;
        // The publisher of the first room, with what the run says.
        let first = sends(&all.publishers[0]).unwrap();
        assert_eq!((sender(&all.publishers[0]), first.kinds), (Some(0), [true, true, false]));
        assert_eq!((first.every, sends(&all.publishers[1])), (Duration::from_millis(100), None));
        // The first two of the cohort, of whichever rooms, after those of the run.
        let is_chatty = |one: &&ParticipantSpec| one.cohort_name.is_some();
        let chatty: Vec<_> = all.subscribers.iter().filter(is_chatty).collect();
        for (number, one) in chatty.iter().enumerate() {
            assert_eq!(sends(one).is_some(), number < 2);
            assert_eq!(one.calls(), number < 1);
            assert_eq!(one.updates_every, Some(Duration::from_secs(2)));
            assert!(one.profile.grants.iter().any(|it| it.name() == "canUpdateOwnMetadata"));
            let Some(sends) = sends(one) else { continue };
            assert_eq!(
                (sends.kinds, sends.every),
                ([false, true, false], Duration::from_millis(250))
            );
            let in_first = one.room.ends_with("-1");
            let before = chatty[..number].iter().filter(|it| it.room == one.room).count();
            assert_eq!(sender(one), Some(before + usize::from(in_first)));
        }
        let calls = chatty[0].media.rpc.as_ref().unwrap().calls.unwrap();
        assert_eq!(calls.every, Duration::from_millis(500));
        for one in all.subscribers.iter().filter(|one| !is_chatty(one)) {
            assert!(sends(one).is_none() && one.updates_every.is_none() && !one.calls());
            assert!(one.profile.grants.is_empty() && one.role.rpc);
            assert_eq!(one.media.data.as_ref().unwrap().expects, [true, true, false]);
        }
    }

    #[test]
    fn only_kinds_that_somebody_sends_are_expected() {
        let data = crate::DataDraft {
            publishers: Some(1),
            kinds: Some("lossy".parse().unwrap()),
            ..Default::default()
        };
        let few = CohortSpec { data, ..CohortSpec::new("few".to_owned(), CohortSize::Count(1)) };
        let all = participants(Draft { cohorts: vec![few], ..Draft::default() });
        let expects = |one: &ParticipantSpec| one.media.data.as_ref().unwrap().expects;
        assert!(all.subscribers.iter().all(|one| expects(one) == [false, true, false]));
    }

    #[test]
    fn cohorts_send_and_call_besides_those_of_the_run() {
        let one = || crate::DataDraft { publishers: Some(1), ..Default::default() };
        let caller = || crate::RpcDraft { callers: Some(1), ..Default::default() };
        let all = participants(Draft {
            participants: Some(4),
            data: one(),
            rpc: caller(),
            cohorts: vec![CohortSpec {
                data: one(),
                rpc: caller(),
                ..CohortSpec::new("all".to_owned(), CohortSize::Share(1.0))
            }],
            ..Draft::default()
        });
        let does = |one: &ParticipantSpec| (one.sends_data(), one.calls());
        let does: Vec<_> = all.participants.iter().map(does).collect();
        assert_eq!(does, [(true, true), (true, true), (false, false), (false, false)]);
    }

    #[test]
    fn a_layout_shows_what_it_has_places_for() {
        let expected = |video, audio, layout, subscribe_mode| {
            let draft = Draft {
                video_publishers: Some(video),
                audio_publishers: Some(audio),
                layout: Some(layout),
                subscribe_mode,
                ..Draft::default()
            };
            participants(draft).subscribers[0].tracks
        };
        let speaker = LayoutChoice::Speaker;
        assert_eq!(expected(8, 8, speaker, None), [Some(6), Some(6)]);
        assert_eq!(expected(8, 8, speaker, Some(SubscribeMode::Auto)), [Some(6), Some(8)]);
        assert_eq!(expected(3, 8, speaker, None), [None, Some(6)]);
        assert_eq!(expected(3, 1, LayoutChoice::Grid3x3, None), [Some(3), Some(1)]);
    }

    #[test]
    fn only_the_asked_for_number_records() {
        let all = participants(Draft {
            record: Some("recordings".into()),
            record_subscribers: Some(2),
            subscribers: Some(5),
            ..Draft::default()
        });
        let records =
            |one: &&ParticipantSpec| one.media.receives.is_some_and(|receives| receives.record);
        assert_eq!(all.subscribers.iter().filter(records).count(), 2);
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

    #[test]
    fn parts_are_the_whole_and_know_their_places() {
        let draft = Draft {
            rooms: 2,
            video_publishers: Some(1),
            participants: Some(1),
            subscribers: Some(3),
            cohorts: vec![CohortSpec::new("half".to_owned(), CohortSize::Share(0.5))],
            ..Draft::default()
        };
        let whole = participants(draft);
        let members = whole.rooms_and_parts();
        assert_eq!((members.len(), whole.count()), (10, 10));
        assert_eq!(members[..4], [(0, 0), (1, 0), (0, members[2].1), (1, members[3].1)]);
        assert!(members[4..].iter().any(|one| one.1 == 2), "subscribers of no cohort");
        assert!(members[4..].iter().any(|one| one.1 > 2), "and of one");
        let mut parts = [whole.clone(), whole.clone()];
        let keeps: Vec<bool> = (0..10).map(|number| number % 3 == 0).collect();
        parts[0].keep(&keeps);
        parts[1].keep(&keeps.iter().map(|kept| !kept).collect::<Vec<_>>());
        let names = |all: &Participants| -> Vec<String> {
            let kinds = all.publishers.iter().chain(&all.participants).chain(&all.subscribers);
            kinds.map(|one| one.identity.clone()).collect()
        };
        let mut both = [names(&parts[0]), names(&parts[1])].concat();
        let mut all = names(&whole);
        both.sort();
        all.sort();
        assert_eq!(both, all);
        for part in &parts {
            let places = &part.part.as_ref().unwrap().places;
            let of: Vec<_> = places.iter().map(|places| places.of).collect();
            assert_eq!(of, [2, 2, 6]);
            for (at, one) in places[2].at.iter().zip(&part.subscribers) {
                assert_eq!(one.identity, whole.subscribers[*at].identity);
                assert_eq!(one.tracks, whole.subscribers[*at].tracks, "of all publishers");
                assert!(part.identities().has(&one.identity) && part.own.has(&one.identity));
            }
        }
        assert!(!parts[0].identities().has(&parts[1].publishers[0].identity));
        let mut first = whole.clone();
        first.keep(&[true]);
        assert_eq!(first.rooms_joined(), whole.rooms[..1]);
    }
}
