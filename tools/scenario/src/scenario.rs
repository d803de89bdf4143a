//! From a [`Draft`] to a [`Scenario`]: everything checked against everything else. What needs the
//! machine, a file or the network is looked at later, before anybody joins.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use stampede_core::watch::Rules;
use stampede_core::{AudioOptions, CongestionFeedback, PathKind, Transport};
use stampede_impair::Spec as ImpairSpec;
use stampede_media::{Codec, MediaClip, ScalabilityMode};
use stampede_report::Failure;
use stampede_report::threshold::Threshold;
use stampede_sfu::SfuOptions;
use stampede_signaling::connection::MESSAGE_BYTES_MAX;
use stampede_signaling::session::SignalVersion;
use stampede_signaling::session::flood::BYTES_BURST_MAX;
use stampede_signaling::{ApiCredentials, Profile, ServerUrl};
use url::Url;

use crate::codec_mix::{CodecMix, CodecTurns};
use crate::cohort_spec::is_hidden;
use crate::draft::{CaptureDraft, Draft, EmbeddedDraft};
use crate::screen::ScreenSpec;
use crate::shape::{RoomDefaults, Shape, default_duration};
use crate::values::{Backend, CoreList, PublishResolution, Resolution};
use crate::{
    Audience, BackupCodec, CodecList, CohortProfile, CohortSpec, Cohorts, DataSpec, FaultKind,
    FaultSpec, Layering, OtlpUrl, ParticipantTracks, Reconnect, RoomSpec, RpcSpec, Secret,
    Shorthand, Signal, fault, people,
};

/// Participants allowed at a `*.livekit.cloud` address: its acceptable use policy forbids load
/// tests without permission.
const CLOUD_PARTICIPANTS_MAX: u64 = 50;
/// Longest room name; livekit-server's default limit is 256 (`limit.max_room_name_length`).
const ROOM_NAME_CHARS_MAX: usize = 240;
/// Most participants of one run; more is a typing error.
const PARTICIPANTS_MAX: u64 = 1_000_000;
/// What a `join` tells of a participant that publishes video and audio, without its metadata and
/// attributes: some 490 bytes.
const PARTICIPANT_BYTES: usize = 512;
/// Simulcast layers of LiveKit: q, h, f.
const LAYERS_MAX: usize = 3;

/// A run that makes sense.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Where to join.
    pub target: Target,
    /// Room name as given; `None` is named after the run.
    pub room: Option<String>,
    /// Number of rooms.
    pub rooms: u32,
    /// Per room.
    pub video_publishers: u32,
    /// Per room.
    pub audio_publishers: u32,
    /// Who share their screen, per room.
    pub screen_share_publishers: u32,
    /// What is published of their screens; `None` where nobody shares one.
    pub screen: Option<ScreenSpec>,
    /// Per room; with stages the most at one time, of drawn rooms the mean, both rounded up.
    pub subscribers: u32,
    /// Who send and receive, per room.
    pub participants: u32,
    /// Data messages, if any are sent.
    pub data: Option<DataSpec>,
    /// Calls between participants, if any are made.
    pub rpc: Option<RpcSpec>,
    /// How long to hold after the ramp.
    pub duration: Duration,
    /// Joins started per second, over all rooms.
    pub joins_per_second: f64,
    /// Further tries of a join that failed.
    pub retry: u32,
    /// Pause before each.
    pub retry_sleep: Duration,
    /// How who was connected comes back.
    pub reconnect: Reconnect,
    /// Which signalling protocol participants speak.
    pub signal: Signal,
    /// What subscribers tell the server of congestion.
    pub feedback: CongestionFeedback,
    /// Publishers leave out the layers that the server's feedback has no room for.
    pub adapt: bool,
    /// By which ways participants may be connected.
    pub transport: Transport,
    /// Seed as given.
    pub seed: Option<u64>,
    /// Layer subscribers ask for.
    pub resolution: Resolution,
    /// What subscribers can receive; `None` is everything.
    pub subscribe_codecs: Option<CodecList>,
    /// What video publishers send; `None` without video publishers.
    pub video: Option<VideoSpec>,
    /// One layer only of cameras and shared screens, the highest.
    pub single_layer: bool,
    /// What audio publishers send: a file, or the built-in clip if it has none; `None` without
    /// audio publishers.
    pub audio: Option<Option<PathBuf>>,
    /// How audio is sent, where the server agrees.
    pub audio_options: AudioOptions,
    /// Recording, if any.
    pub record: Option<RecordSpec>,
    /// Publishers stop sending layers that nobody wants.
    pub dynacast: bool,
    /// How long after a gap was seen a repaired packet is in time.
    pub playout_deadline: Duration,
    /// The bounds of watch accounts.
    pub watch_rules: Rules,
    /// What is done on purpose to what subscribers receive.
    pub impair: Vec<ImpairSpec>,
    /// What happens on purpose to whom when; all of it can.
    pub faults: Vec<FaultSpec>,
    /// How subscribers come and go; with stages these say it.
    pub audience: Audience,
    /// Worker threads as given.
    pub workers: Option<u32>,
    /// Worker cores as given.
    pub cores: Option<CoreList>,
    /// UDP backend.
    pub backend: Backend,
    /// Receive buffer asked of the kernel for each peer's socket.
    pub receive_buffer_bytes: usize,
    /// Memory of each worker's packet ring as given, rounded down to a power of two.
    pub packet_ring_bytes: Option<usize>,
    /// What the run has to keep.
    pub thresholds: Vec<Threshold>,
    /// The flight recorder, if any.
    pub capture: Option<CaptureSpec>,
    /// What to scrape.
    pub server_metrics: Vec<Url>,
    /// Who is told the run's metrics.
    pub otlp: Option<OtlpUrl>,
    /// How the server, its metrics and who is told metrics are reached.
    pub network: NetworkSpec,
    /// Rooms, stages, cohorts, layout.
    pub shape: Shape,
    /// The parts of the subscribers.
    pub cohorts: Cohorts,
    /// Subscribers join without subscribing to anything.
    pub no_media: bool,
    /// What join tokens say besides.
    pub profile: Arc<Profile>,
    /// Updates that each participant makes of itself, per second, unless its cohort says otherwise.
    pub metadata_updates_per_second: Option<f64>,
}

/// Where to join.
#[derive(Debug, Clone)]
pub enum Target {
    /// A child process of ours on loopback.
    Embedded(Box<Embedded>),
    /// A server.
    Server(Server),
}

/// The embedded SFU.
#[derive(Debug, Clone)]
pub struct Embedded {
    /// Its cores as given.
    pub cores: Option<CoreList>,
    /// What it drops and holds back: flags of its own count before those of the run.
    pub short: Shorthand,
    /// Its impairments as given.
    pub impair: Vec<ImpairSpec>,
    /// Further flags as given.
    pub flags: Vec<String>,
    /// All of it as it is started, but for ports, keys, cores and seed.
    pub options: SfuOptions,
}

/// A server and the key to it.
#[derive(Debug, Clone)]
pub struct Server {
    /// Where it listens.
    pub url: ServerUrl,
    /// The key to it; there may be none where others have made the tokens.
    pub credentials: Option<ApiCredentials>,
    /// File with join tokens that others have made.
    pub token_file: Option<PathBuf>,
}

/// Published video.
#[derive(Debug, Clone, PartialEq)]
pub struct VideoSpec {
    /// Files, lowest layer first; empty for the built-in clip.
    pub files: Vec<PathBuf>,
    /// Codecs asked for; that of the files, or VP8, if none was.
    pub codec: Option<CodecMix>,
    /// Codecs of rooms that differ.
    pub of_rooms: Vec<CodecMix>,
    /// How pictures are to be divided into layers within one stream; `None` as is usual for the codec.
    pub layering: Option<Layering>,
    /// Frames a second of an H.264 or H.265 file.
    pub frame_rate: Option<f64>,
    /// One layer only, the highest.
    pub single_layer: bool,
    /// Size of built-in clips.
    pub resolution: PublishResolution,
    /// What tracks are published in besides, once the server asks for it.
    pub backup: BackupCodec,
}

/// What is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordSpec {
    /// The folder.
    pub dir: PathBuf,
    /// How many subscribers record, over all rooms, besides those of cohorts that do.
    pub subscribers: u32,
}

/// The flight recorder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaptureSpec {
    /// The folder.
    pub dir: PathBuf,
    /// How far back.
    pub span: Duration,
    /// How many of the worst subscribers are written.
    pub worst: usize,
    /// Headers only.
    pub headers: bool,
}

/// The way to the server.
#[derive(Debug, Clone, Default)]
pub struct NetworkSpec {
    /// File with certificates to trust besides those of the system.
    pub ca: Option<PathBuf>,
    /// HTTP proxy of signalling, or `none`; `None` asks the environment.
    pub proxy: Option<Secret>,
    /// Longest signalling message as given; see [`Scenario::message_bytes_max`].
    pub message_bytes_max: Option<usize>,
}

/// What is published, opened.
#[derive(Debug, Clone, Default)]
pub struct Clips {
    /// Layers of the video, lowest first; empty without video publishers.
    pub video: Vec<Arc<MediaClip>>,
    /// The same of each further codec, where publishers send several.
    pub more_video: Vec<Vec<Arc<MediaClip>>>,
    /// The audio; `None` without audio publishers.
    pub audio: Option<Arc<MediaClip>>,
    /// Layers of the backup codec, lowest first; empty where no codec has one.
    pub backup: Vec<Arc<MediaClip>>,
    /// Layers of a shared screen, lowest first; empty where nobody shares one.
    pub screen: Vec<Arc<MediaClip>>,
    /// Its largest layer in its backup codec, if it has one.
    pub screen_backup: Option<Arc<MediaClip>>,
    /// Its sound, if it has any.
    pub screen_audio: Option<Arc<MediaClip>>,
}

impl Clips {
    /// Layers of this codec; of the first one there is without it.
    pub fn of_codec(&self, codec: Option<Codec>) -> &[Arc<MediaClip>] {
        let of = |layers: &&Vec<Arc<MediaClip>>| layers.first().map(|clip| clip.codec) == codec;
        self.all_video().find(of).unwrap_or(&self.video)
    }

    /// Video is published by this run: cameras or shared screens.
    pub fn has_video(&self) -> bool {
        !self.video.is_empty() || !self.screen.is_empty()
    }

    /// Audio is published by this run: microphones or the sound of shared screens.
    pub fn has_audio(&self) -> bool {
        self.audio.is_some() || self.screen_audio.is_some()
    }

    /// Layers of each codec.
    pub fn all_video(&self) -> impl Iterator<Item = &Vec<Arc<MediaClip>>> {
        [&self.video].into_iter().chain(&self.more_video)
    }

    /// What the next publisher sends of this mix.
    pub(crate) fn layers<'a>(
        &self,
        mix: Option<&'a CodecMix>,
        turns: &mut CodecTurns<'a>,
    ) -> &[Arc<MediaClip>] {
        self.of_codec(mix.and_then(|mix| turns.next(mix)))
    }
}

impl Scenario {
    /// Codecs that publishers of this room send, if any were asked for.
    pub(crate) fn video_codec<'a>(&'a self, room: &'a RoomSpec) -> Option<&'a CodecMix> {
        let of_all = || self.video.as_ref().and_then(|video| video.codec.as_ref());
        room.video_codec.as_ref().or_else(of_all)
    }

    /// Checks a draft.
    ///
    /// # Errors
    /// The first thing that is wrong, exit code 104.
    pub fn new(draft: Draft) -> Result<Self, Failure> {
        let embedded = draft.url.is_none();
        let participants = draft.participants.unwrap_or(0);
        // Who asks for a meeting gets that alone.
        let meeting =
            participants > 0 || draft.room_drafts.iter().any(|room| room.participants > Some(0));
        let default = |count: Option<u32>, standard: u32| {
            count.unwrap_or(if embedded && !meeting { standard } else { 0 })
        };
        let sender = u32::from(!draft.no_media);
        let video_publishers = default(draft.video_publishers, sender);
        let audio_publishers = default(draft.audio_publishers, sender);
        let subscribers = match draft.room_sizes {
            // The least that is drawn.
            Some(_) => 1,
            None => default(draft.subscribers, 200),
        };
        if draft.rooms == 0 {
            return Err(Failure::config("--rooms 0: there must be at least one room"));
        }
        let defaults = RoomDefaults {
            video_publishers,
            audio_publishers,
            screen_share_publishers: draft.screen_share_publishers,
            data_publishers: draft.data.publishers.unwrap_or(0),
            subscribers,
            participants,
        };
        check_rooms(&draft, defaults)?;
        let shape = Shape::new(&draft, defaults)?;
        // Before anything is made of each of them.
        let peak = (shape.publishers() + shape.receivers_peak()) as u64;
        check_counts(&draft, peak)?;
        // Stages may start far more than are there at a time.
        too_many((shape.publishers() + shape.receivers()) as u64)?;
        let data = DataSpec::new(&draft.data, &shape)?;
        if let Some(data) = &data {
            data.check_hidden(&shape, all_hide(&draft))?;
        }
        let rpc = RpcSpec::new(&draft.rpc, &shape)?;
        if let Some(rpc) = &rpc {
            rpc.check(&shape, hides(&draft))?;
        }
        check_participants(&draft, &shape)?;
        let screen = ScreenSpec::new(&draft, &shape)?;
        people::check(&draft, &shape)?;
        let target = target(&draft, peak)?;
        check_moves(&draft, &target)?;
        check_network(&draft)?;
        let rooms = &shape.rooms;
        let video_most = rooms.iter().map(RoomSpec::video_senders).max().unwrap_or(0);
        let audio_most = rooms.iter().map(RoomSpec::audio_senders).max().unwrap_or(0);
        let subscribers = match shape.stages.is_empty() && shape.room_sizes.is_none() {
            true => subscribers,
            false => {
                let subscribers = shape.receivers_peak() - shape.participants();
                (subscribers as u32).div_ceil(rooms.len() as u32)
            }
        };
        if draft.packet_ring_bytes.is_some()
            && !matches!(draft.backend, Backend::Auto | Backend::PacketRing)
        {
            return Err(Failure::config(format!(
                "--packet-ring: --backend {} has no packet ring; take --backend auto or \
                 packet_ring, or leave --packet-ring out",
                draft.backend.name()
            )));
        }
        let scenario = Self {
            target,
            rooms: rooms.len() as u32,
            video_publishers,
            audio_publishers,
            screen_share_publishers: draft.screen_share_publishers,
            screen,
            subscribers,
            participants,
            data,
            rpc,
            duration: draft.duration.unwrap_or(default_duration(shape.stages.len(), embedded)),
            video: video(&draft, video_most)?,
            single_layer: draft.no_simulcast,
            audio: audio(&draft, audio_most)?,
            record: record(&draft, &shape)?,
            capture: capture(&draft.capture)?,
            cohorts: Cohorts::new(&draft.cohorts, &draft.impair),
            room: draft.room,
            joins_per_second: draft.joins_per_second,
            retry: draft.retry,
            retry_sleep: draft.retry_sleep,
            reconnect: draft.reconnect,
            signal: draft.signal,
            feedback: draft.feedback,
            adapt: draft.adapt,
            transport: draft.transport,
            audience: Audience::new(&draft.audience, &draft.stages)?,
            seed: draft.seed,
            resolution: draft.resolution,
            subscribe_codecs: draft.subscribe_codecs,
            audio_options: AudioOptions { red: !draft.no_audio_red, dtx: !draft.no_audio_dtx },
            dynacast: draft.dynacast,
            playout_deadline: draft.playout_deadline,
            watch_rules: Rules {
                interruption_min: draft.interruption_min,
                join_grace: draft.join_grace,
                ..Rules::default()
            },
            impair: draft.impair,
            faults: draft.faults,
            workers: draft.workers,
            cores: draft.cores,
            backend: draft.backend,
            receive_buffer_bytes: draft.receive_buffer_bytes,
            // No more than was asked for.
            packet_ring_bytes: draft.packet_ring_bytes.map(|bytes| 1 << bytes.max(1).ilog2()),
            thresholds: draft.thresholds,
            server_metrics: draft.server_metrics,
            otlp: draft.otlp.as_ref().map(otlp).transpose()?,
            network: NetworkSpec {
                ca: draft.ca,
                proxy: draft.proxy,
                message_bytes_max: draft.message_bytes_max,
            },
            shape,
            no_media: draft.no_media,
            profile: people::profile(draft.profile, draft.metadata_updates_per_second).into(),
            metadata_updates_per_second: draft.metadata_updates_per_second,
        };
        scenario.check_cohorts_of("--threshold", &scenario.thresholds)?;
        fault::check(&scenario.faults, &scenario.shape, &scenario.cohorts, scenario.window())?;
        Ok(scenario)
    }

    /// Whether anybody makes updates of itself.
    pub fn has_updates(&self) -> bool {
        let mut cohorts = self.shape.cohorts.iter();
        self.metadata_updates_per_second.is_some()
            || cohorts.any(|cohort| cohort.metadata_updates_per_second.is_some())
    }

    /// Checks that thresholds on cohorts are on some that this run has; `flag` gave them.
    ///
    /// # Errors
    /// The first that is not, exit code 104.
    pub fn check_cohorts_of(&self, flag: &str, thresholds: &[Threshold]) -> Result<(), Failure> {
        for test in thresholds {
            self.cohorts
                .check(&test.key)
                .map_err(|error| Failure::config(format!("{flag} {}: {error}", test.expr)))?;
        }
        Ok(())
    }

    /// All participants that join over the whole run.
    pub fn participants_total(&self) -> usize {
        self.shape.publishers() + self.shape.receivers()
    }

    /// Most participants at one time.
    pub fn participants_peak(&self) -> usize {
        self.shape.publishers() + self.shape.receivers_peak()
    }

    /// Most peer connections at one time: one a participant, but by v0 two of those that receive and
    /// send something, be it data of a cohort or calls and answers. With [`Signal::Auto`] it is taken
    /// that the server knows v1.
    pub fn connections_peak(&self) -> usize {
        let pairs = match self.signal {
            Signal::Only(SignalVersion::V0) => self.pairs_peak(),
            Signal::Only(SignalVersion::V1) | Signal::Auto => 0,
        };
        self.participants_peak() + pairs
    }

    /// Who has two connections by v0.
    fn pairs_peak(&self) -> usize {
        let most = self.shape.receivers_peak();
        if self.rpc.is_some() {
            return most;
        }
        let cohorts = self.shape.cohorts.iter();
        let senders = cohorts.map(|cohort| cohort.data.publishers.unwrap_or(0) as usize);
        most.min(self.shape.participants() + senders.sum::<usize>())
    }

    /// How long the measured window will be, if nothing ends it early: without stages the time held,
    /// else the stages behind the first and what is held after them.
    pub fn window(&self) -> Duration {
        let stages = self.shape.stages.iter().skip(1).map(|stage| stage.duration);
        stages.fold(self.duration, Duration::saturating_add)
    }

    /// Longest signalling message taken of the server: what was given, or what is usual, or a `join`
    /// that tells of everybody in the run's largest room.
    pub fn message_bytes_max(&self) -> usize {
        if let Some(bytes) = self.network.message_bytes_max {
            return bytes;
        }
        let profiles = self.shape.cohorts.iter().map(|cohort| {
            people::profile_of(cohort, &self.profile).map_or(0, |profile| profile.bytes())
        });
        let profile = profiles.fold(self.profile.bytes(), usize::max);
        let people = self.shape.rooms.iter().map(|room| room.publishers() + room.receivers());
        let room = (people.max().unwrap_or(0) as usize)
            .saturating_mul(PARTICIPANT_BYTES.saturating_add(profile));
        room.clamp(MESSAGE_BYTES_MAX, BYTES_BURST_MAX as usize)
    }

    /// Memory of each worker's packet ring: a power of two, as the kernel wants it.
    pub fn packet_ring_bytes_of(&self, workers: usize) -> usize {
        let each = self.connections_peak().div_ceil(workers.max(1));
        self.packet_ring_bytes.unwrap_or_else(|| packet_ring_bytes(each))
    }
}

/// Memory of a packet ring for so many peers: about a tenth of a second of 720p (200 packets a
/// second of up to 1,200 bytes, each of which takes 1,328), or up to twice that, for it is rounded
/// up to a power of two. The sockets' own buffers are behind it.
pub fn packet_ring_bytes(peers: usize) -> usize {
    const EACH: usize = 24 << 10;
    (peers * EACH).clamp(8 << 20, 1 << 30).next_power_of_two()
}

/// Before a list of rooms is made: there may be a great many by a slip.
fn check_rooms(draft: &Draft, defaults: RoomDefaults) -> Result<(), Failure> {
    let publishers = defaults.video_publishers.max(defaults.audio_publishers);
    let publishers = publishers.max(defaults.data_publishers);
    let publishers = publishers.max(defaults.screen_share_publishers);
    let receivers = u64::from(defaults.subscribers) + u64::from(defaults.participants);
    let per_room = u64::from(publishers) + receivers;
    too_many(per_room.max(1) * u64::from(draft.rooms))
}

fn too_many(participants: u64) -> Result<(), Failure> {
    if participants > PARTICIPANTS_MAX {
        return Err(Failure::config(format!(
            "{participants} participants are more than one run takes ({PARTICIPANTS_MAX}): \
             lower --rooms, the counts per room, or the joins of --stage"
        )));
    }
    Ok(())
}

fn check_counts(draft: &Draft, participants: u64) -> Result<(), Failure> {
    if participants == 0 {
        return Err(Failure::config(
            "nobody would join: give --subscribers, --participants, --video-publishers, \
             --audio-publishers, --screen-share-publishers or --data-publishers",
        ));
    }
    too_many(participants)?;
    let named = draft.room_drafts.iter().filter_map(|table| table.name.as_ref());
    for room in draft.room.iter().chain(named) {
        let chars = room.chars().count();
        if chars == 0 || chars > ROOM_NAME_CHARS_MAX || room.chars().any(char::is_control) {
            return Err(Failure::config(format!(
                "--room: a room name has 1 to {ROOM_NAME_CHARS_MAX} printable characters, \
                 this one has {chars}"
            )));
        }
    }
    if draft.workers == Some(0) {
        return Err(Failure::config("--workers 0: at least one worker is needed"));
    }
    Ok(())
}

/// What participants that send and receive need.
fn check_participants(draft: &Draft, shape: &Shape) -> Result<(), Failure> {
    let participants = shape.participants();
    if participants == 0 && draft.participant_tracks != ParticipantTracks::default() {
        return Err(Failure::config(format!(
            "--participant-tracks {} is given but there are no participants: add --participants 2",
            draft.participant_tracks
        )));
    }
    Ok(())
}

fn target(draft: &Draft, participants: u64) -> Result<Target, Failure> {
    let embedded = &draft.embedded;
    let Some(text) = &draft.url else {
        if draft.token_file.is_some() {
            return Err(Failure::config(
                "--token-file holds the tokens of a server, but the embedded SFU has keys of its \
                 own: add --url wss://HOST",
            ));
        }
        let short = embedded.flags_short.over(embedded.short);
        return Ok(Target::Embedded(Box::new(Embedded {
            cores: embedded.cores.clone(),
            short,
            impair: embedded.impair.clone(),
            flags: embedded.flags.clone(),
            options: embedded_options(embedded, short)?,
        })));
    };
    for (given, flag) in [
        (embedded.cores.is_some(), "--embedded-cores"),
        (embedded.short.drop.is_some(), "--embedded-drop"),
        (embedded.short.drop_burst.is_some(), "--embedded-drop-burst"),
        (embedded.short.delay.is_some(), "--embedded-delay"),
        (!embedded.impair.is_empty(), "--embedded-impair"),
        (!embedded.flags.is_empty(), "--embedded-flag"),
    ] {
        if given {
            return Err(Failure::config(format!(
                "{flag} is for the embedded SFU, but --url (or LIVEKIT_URL) names a server: \
                 leave one of them out"
            )));
        }
    }
    let url = ServerUrl::parse(text).map_err(|error| Failure::config(format!("--url: {error}")))?;
    check_cloud(&url, participants)?;
    let unprintable = |text: &str| text.trim().chars().any(|c| c.is_whitespace() || c.is_control());
    let key = draft.api_key.as_deref().unwrap_or_default();
    let secret = draft.api_secret.as_ref().map_or("", Secret::expose);
    for (text, what) in [(key, "key"), (secret, "secret")] {
        if unprintable(text) {
            return Err(Failure::config(format!(
                "the API {what} holds a space or line break: copy it again"
            )));
        }
    }
    let needless =
        draft.token_file.is_some() && (key.trim().is_empty() || secret.trim().is_empty());
    let credentials = match needless {
        true => None,
        false => Some(ApiCredentials::new(key, secret).map_err(Failure::config)?),
    };
    check_token_file(draft)?;
    Ok(Target::Server(Server { url, credentials, token_file: draft.token_file.clone() }))
}

/// Whether some participants are hidden from the others, who are not told of them.
fn hides(draft: &Draft) -> bool {
    draft.hidden || all_hide(draft) || draft.cohorts.iter().any(CohortSpec::hides)
}

/// The same of all participants, but for cohorts that say otherwise.
fn all_hide(draft: &Draft) -> bool {
    draft.profile.grants.iter().any(is_hidden)
}

/// Tokens of others say themselves who joins which room, and what else there is to say.
fn check_token_file(draft: &Draft) -> Result<(), Failure> {
    let says =
        |what: fn(&CohortProfile) -> bool| draft.cohorts.iter().any(|one| what(&one.profile));
    let given = [
        (draft.room.is_some(), "--room"),
        (draft.room_drafts.iter().any(|room| room.name.is_some()), "a [[room]]'s name"),
        (draft.hidden, "--hidden"),
        (!draft.profile.grants.is_empty(), "--grant"),
        (!draft.profile.metadata.is_empty(), "--participant-metadata"),
        (!draft.profile.attributes.is_empty(), "--participant-attribute"),
        (says(|one| !one.grants.is_empty()), "a [[cohort]]'s grants"),
        (says(|one| one.metadata.is_some()), "a [[cohort]]'s metadata"),
        (says(|one| !one.attributes.is_empty()), "a [[cohort]]'s attributes"),
    ];
    let given = given.into_iter().find(|(given, _)| *given && draft.token_file.is_some());
    match given {
        Some((_, what)) => Err(Failure::config(format!(
            "--token-file: the tokens say that themselves, leave {what} out"
        ))),
        None => Ok(()),
    }
}

/// Whoever moves participants asks the server with its key.
fn check_moves(draft: &Draft, target: &Target) -> Result<(), Failure> {
    let keyless = matches!(target, Target::Server(Server { credentials: None, .. }));
    match draft.faults.iter().any(|fault| fault.kind == FaultKind::Move) && keyless {
        true => Err(Failure::config(
            "--fault move asks the server to move somebody, which takes its API key and secret \
             besides --token-file: add --api-key and --api-secret",
        )),
        false => Ok(()),
    }
}

/// The embedded SFU's options with what the run's own flags for it add.
fn embedded_options(embedded: &EmbeddedDraft, short: Shorthand) -> Result<SfuOptions, Failure> {
    let mut options = embedded.options.clone();
    options.impair.splice(0..0, embedded.impair.iter().cloned());
    // One impairment, for of two of everybody only the first would count.
    let short =
        short.spec().map_err(|error| Failure::config(format!("--embedded-drop: {error}")))?;
    options.impair.extend(short);
    Ok(options)
}

fn otlp(url: &Secret) -> Result<OtlpUrl, Failure> {
    OtlpUrl::parse(url.expose()).map_err(|error| Failure::config(format!("--otlp: {error}")))
}

fn check_network(draft: &Draft) -> Result<(), Failure> {
    // A TURN server has its own certificate, whoever names it.
    let is_for_turn = draft.transport == Transport::Only(PathKind::TurnTls);
    let given = [(draft.ca.is_some() && !is_for_turn, "--ca"), (draft.proxy.is_some(), "--proxy")];
    let given = given.into_iter().find(|(given, _)| *given);
    if let Some((_, flag)) = given
        && draft.url.is_none()
        && draft.server_metrics.is_empty()
        && draft.otlp.is_none()
    {
        return Err(Failure::config(format!(
            "{flag} is given without --url: the embedded SFU is reached directly; add --url \
             wss://HOST or leave {flag} out"
        )));
    }
    Ok(())
}

fn check_cloud(url: &ServerUrl, participants: u64) -> Result<(), Failure> {
    if url.is_livekit_cloud() && participants > CLOUD_PARTICIPANTS_MAX {
        return Err(Failure::config(format!(
            "{participants} participants at {} are refused: LiveKit Cloud's acceptable use \
             policy forbids load tests; stay at or below {CLOUD_PARTICIPANTS_MAX}, or test a \
             server of your own",
            url.host()
        )));
    }
    Ok(())
}

fn video(draft: &Draft, publishers: u32) -> Result<Option<VideoSpec>, Failure> {
    let files = &draft.video;
    if publishers == 0 {
        let given = [
            (!files.is_empty(), "--video"),
            (draft.publish_resolution != PublishResolution::default(), "--publish-resolution"),
        ];
        return match given.into_iter().find(|(given, _)| *given) {
            Some((_, flag)) => Err(Failure::config(format!(
                "{flag} is given but nobody publishes video of a camera: add --video-publishers 1 or \
                 --participants 2"
            ))),
            None => Ok(None),
        };
    }
    if files.is_empty() && draft.video_frame_rate.is_some() {
        return Err(Failure::config(
            "--video-frame-rate is given without an H.264 or H.265 file: add --video FILE.h264",
        ));
    }
    if !files.is_empty() && draft.publish_resolution != PublishResolution::default() {
        return Err(Failure::config(
            "--publish-resolution is of the built-in clips, and --video has a size of its own: leave \
             one of them out",
        ));
    }
    if files.len() > LAYERS_MAX {
        return Err(Failure::config(format!(
            "--video is given {} times: a track has at most {LAYERS_MAX} simulcast layers",
            files.len()
        )));
    }
    if draft.no_simulcast && files.len() > 1 {
        return Err(Failure::config(format!(
            "--no-simulcast publishes one layer, but --video is given {} times: leave one out",
            files.len()
        )));
    }
    let of_rooms: Vec<CodecMix> =
        draft.room_drafts.iter().filter_map(|room| room.video_codec.clone()).collect();
    let several = draft.video_codec.as_ref().filter(|mix| mix.single().is_none());
    if let Some(mix) = several.or(of_rooms.first()).filter(|_| !files.is_empty()) {
        return Err(Failure::config(format!(
            "--video-codec {mix}: files have one codec for all: leave --video out, so that built-in \
             clips are published, or give their codec alone"
        )));
    }
    Ok(Some(VideoSpec {
        files: files.clone(),
        codec: draft.video_codec.clone(),
        of_rooms,
        layering: layering(draft)?,
        frame_rate: draft.video_frame_rate,
        single_layer: draft.no_simulcast,
        resolution: draft.publish_resolution,
        backup: draft.backup_codec,
    }))
}

/// How pictures are divided into layers within one stream: as was said; the built-in clips of VP9 and
/// AV1 as browsers publish them.
impl VideoSpec {
    /// How pictures of this codec are divided into layers within one stream; without a codec, those of
    /// files that say which they have.
    pub fn scalability(&self, codec: Option<Codec>) -> Option<ScalabilityMode> {
        let usual = || match self.files.is_empty() && !self.single_layer {
            true => Layering::usual(codec),
            false => Layering::None,
        };
        let has_layers = self.resolution.has_layers_within_a_stream();
        let mode = self.layering.unwrap_or_else(usual).mode().filter(|_| has_layers);
        mode.filter(|_| codec.is_none_or(Layering::is_for))
    }
}

/// What was asked for, if it can be had.
fn layering(draft: &Draft) -> Result<Option<Layering>, Failure> {
    let Some(mode) = draft.scalability_mode.and_then(Layering::mode) else {
        return Ok(draft.scalability_mode);
    };
    let rooms = draft.room_drafts.iter().filter_map(|room| room.video_codec.as_ref());
    let mut codecs = draft.video_codec.iter().chain(rooms).flat_map(CodecMix::codecs).peekable();
    let undecided = codecs.peek().is_none();
    let fits = codecs.any(Layering::is_for);
    if !fits && (!undecided || draft.video.is_empty()) {
        return Err(Failure::config(format!(
            "--scalability-mode {mode} is for VP9 and AV1: add --video-codec vp9 or av1, or leave it \
             out"
        )));
    }
    let resolution = draft.publish_resolution;
    if !resolution.has_layers_within_a_stream() {
        return Err(Failure::config(format!(
            "--scalability-mode {mode}: the built-in clips of --publish-resolution {} have no layers \
             within a stream; leave one of them out",
            resolution.name()
        )));
    }
    if draft.video.len() > 1 {
        return Err(Failure::config(format!(
            "--scalability-mode {mode} has all layers in one file, but --video is given {} times: \
             leave the others out",
            draft.video.len()
        )));
    }
    if draft.no_simulcast && mode.spatial_layers() > 1 {
        return Err(Failure::config(format!(
            "--no-simulcast publishes one layer, but --scalability-mode {mode} has {}: leave one of \
             them out",
            mode.spatial_layers()
        )));
    }
    Ok(draft.scalability_mode)
}

fn audio(draft: &Draft, publishers: u32) -> Result<Option<Option<PathBuf>>, Failure> {
    match &draft.audio {
        Some(_) if publishers == 0 => Err(Failure::config(
            "--audio is given but nobody publishes audio: add --audio-publishers 1 or --participants 2",
        )),
        _ if publishers == 0 => Ok(None),
        file => Ok(Some(file.clone())),
    }
}

fn record(draft: &Draft, shape: &Shape) -> Result<Option<RecordSpec>, Failure> {
    let subscribers = u32::try_from(shape.receivers()).unwrap_or(u32::MAX);
    let cohort = shape.cohorts.iter().find(|cohort| cohort.record);
    let Some(dir) = &draft.record else {
        if let Some(cohort) = cohort {
            return Err(Failure::config(format!(
                "cohort '{}' records but has no folder to write to: add --record DIR",
                cohort.name
            )));
        }
        return match draft.record_subscribers {
            Some(count) => Err(Failure::config(format!(
                "--record-subscribers {count} has no folder to write to: add --record DIR"
            ))),
            None => Ok(None),
        };
    };
    // Who names a cohort that records means that one.
    let wanted = draft.record_subscribers.unwrap_or(u32::from(cohort.is_none()));
    if (wanted == 0 && cohort.is_none()) || wanted > subscribers {
        return Err(Failure::config(format!(
            "--record-subscribers {wanted}: it must lie between 1 and the {subscribers} \
             subscribers of this run"
        )));
    }
    Ok(Some(RecordSpec { dir: dir.clone(), subscribers: wanted }))
}

fn capture(draft: &CaptureDraft) -> Result<Option<CaptureSpec>, Failure> {
    let Some(dir) = &draft.dir else {
        return match draft.headers {
            true => Err(Failure::config(
                "--capture-headers has no folder to write to: add --capture DIR",
            )),
            false => Ok(None),
        };
    };
    Ok(Some(CaptureSpec {
        dir: dir.clone(),
        span: draft.span,
        worst: draft.worst as usize,
        headers: draft.headers,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CohortSize, DataDraft, RoomDraft, RpcDraft};

    fn cohort(data_publishers: u32) -> CohortSpec {
        let data = DataDraft { publishers: Some(data_publishers), ..DataDraft::default() };
        CohortSpec { data, ..CohortSpec::new("few".to_owned(), CohortSize::Count(3)) }
    }

    #[test]
    fn a_packet_ring_has_what_the_scenario_says() {
        assert_eq!(packet_ring_bytes(1), 8 << 20);
        assert_eq!(packet_ring_bytes(2_000), 64 << 20, "24 KiB for each are 48 MiB");
        assert_eq!(packet_ring_bytes(1 << 20), 1 << 30);
        let of = |packet_ring_bytes| {
            Scenario::new(Draft { packet_ring_bytes, ..Draft::default() }).unwrap()
        };
        assert_eq!(of(Some(100 << 20)).packet_ring_bytes_of(2), 64 << 20);
        assert_eq!(of(None).packet_ring_bytes_of(2), 8 << 20);
    }

    #[test]
    fn a_message_is_as_long_as_the_runs_largest_room_needs() {
        let of = |draft| Scenario::new(draft).unwrap().message_bytes_max();
        assert_eq!(of(Draft::default()), 2 << 20);
        let large = Draft { subscribers: Some(9_999), ..Draft::default() };
        assert_eq!(of(large.clone()), 10_000 * PARTICIPANT_BYTES);
        assert_eq!(of(Draft { rooms: 2, ..large.clone() }), 10_000 * PARTICIPANT_BYTES);
        let metadata = Profile { metadata: "x".repeat(1_000), ..Profile::default() };
        let told = Draft { profile: metadata, ..large.clone() };
        assert_eq!(of(told), 10_000 * (PARTICIPANT_BYTES + 1_000));
        let given = Draft { message_bytes_max: Some(65_536), ..large.clone() };
        assert_eq!(of(given), 65_536);
        assert_eq!(of(Draft { subscribers: Some(500_000), ..large }), 64 << 20);
    }

    #[test]
    fn by_v0_who_receives_and_sends_anything_has_two_connections() {
        let draft = Draft {
            video_publishers: Some(1),
            participants: Some(2),
            subscribers: Some(10),
            signal: Signal::Only(SignalVersion::V0),
            ..Draft::default()
        };
        let peak = |draft| Scenario::new(draft).unwrap().connections_peak();
        assert_eq!(peak(draft.clone()), 13 + 2);
        let data = Draft { cohorts: vec![cohort(3)], ..draft.clone() };
        assert_eq!(peak(data.clone()), 13 + 2 + 3);
        let rpc = RpcDraft { callers: Some(1), ..RpcDraft::default() };
        assert_eq!(peak(Draft { rpc, ..data.clone() }), 13 + 12);
        let signal = Signal::Only(SignalVersion::V1);
        assert_eq!(peak(Draft { signal, ..data }), 13);
    }

    #[test]
    fn counts_are_checked_before_anything_is_made_of_each() {
        let room = RoomDraft { subscribers: Some(4_000_000_000), ..RoomDraft::default() };
        let draft = Draft { room_drafts: vec![room], cohorts: vec![cohort(1)], ..Draft::default() };
        let error = Scenario::new(draft).unwrap_err().to_string();
        assert!(error.contains("more than one run takes"), "{error}");
    }
}
