//! What was asked for, before anything is checked.

use std::path::PathBuf;
use std::time::Duration;

use stampede_core::{CongestionFeedback, Transport};
use stampede_impair::Spec as ImpairSpec;
use stampede_media::Codec;
use stampede_report::threshold::Threshold;
use stampede_sfu::SfuOptions;
use stampede_signaling::Profile;
use url::Url;

use crate::values::{Backend, CoreList, PublishResolution, Resolution};
use crate::{
    AudienceDraft, BackupCodec, CodecList, CodecMix, CohortSpec, DataDraft, FaultSpec, Layering,
    LayoutChoice, ParticipantTracks, Reconnect, RoomDraft, RoomSizes, RpcDraft, Secret, Shorthand,
    Signal, Stage, SubscribeMode,
};

/// Receive buffer asked for each peer's socket.
const RECEIVE_BUFFER_BYTES: usize = 1 << 20;

/// Every option of a run. The default is `stampede run` without a flag: the embedded SFU, a
/// publisher of video and audio, and 200 subscribers. What each means is said where the flags are
/// (docs/flags.md); `None` and empty lists are what was not given.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// Server to join; `None` is the embedded SFU.
    pub url: Option<String>,
    /// API key of the server.
    pub api_key: Option<String>,
    /// API secret of the server.
    pub api_secret: Option<Secret>,
    /// Room to join.
    pub room: Option<String>,
    /// Rooms; counts are per room.
    pub rooms: u32,
    /// Per room.
    pub video_publishers: Option<u32>,
    /// Per room.
    pub audio_publishers: Option<u32>,
    /// Per room.
    pub subscribers: Option<u32>,
    /// Who send and receive, per room.
    pub participants: Option<u32>,
    /// What each of these sends.
    pub participant_tracks: ParticipantTracks,
    /// Who share their screen, per room.
    pub screen_share_publishers: u32,
    /// A shared screen has sound.
    pub screen_share_audio: bool,
    /// Codec of shared screens.
    pub screen_share_codec: Option<Codec>,
    /// Video files of shared screens, lowest layer first.
    pub screen_share: Vec<PathBuf>,
    /// Data messages.
    pub data: DataDraft,
    /// Calls between participants.
    pub rpc: RpcDraft,
    /// How long to hold after the ramp.
    pub duration: Option<Duration>,
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
    /// `--transport`.
    pub transport: Transport,
    /// Seed of everything random.
    pub seed: Option<u64>,
    /// Layer that subscribers ask for.
    pub resolution: Resolution,
    /// Size of the built-in clips.
    pub publish_resolution: PublishResolution,
    /// Codecs of published video.
    pub video_codec: Option<CodecMix>,
    /// What VP9, AV1 and H.265 are published in besides, once the server asks for it.
    pub backup_codec: BackupCodec,
    /// What subscribers can receive; `None` is everything.
    pub subscribe_codecs: Option<CodecList>,
    /// How pictures of VP9 and AV1 are divided into layers; `None` as the codec's built-in clip is.
    pub scalability_mode: Option<Layering>,
    /// Frames a second of an H.264 file.
    pub video_frame_rate: Option<f64>,
    /// Publish one layer only.
    pub no_simulcast: bool,
    /// Publishers stop sending layers that nobody wants.
    pub dynacast: bool,
    /// Video files, lowest layer first.
    pub video: Vec<PathBuf>,
    /// Audio file.
    pub audio: Option<PathBuf>,
    /// Publish audio without redundancy.
    pub no_audio_red: bool,
    /// Publish audio with its silence.
    pub no_audio_dtx: bool,
    /// Folder for recordings.
    pub record: Option<PathBuf>,
    /// Subscribers that record, over all rooms.
    pub record_subscribers: Option<u32>,
    /// How long after a gap was seen a repaired packet is in time.
    pub playout_deadline: Duration,
    /// From when on a gap without a playable frame is an interruption.
    pub interruption_min: Duration,
    /// How long after its scheduled join a subscriber is expected to watch at the latest.
    pub join_grace: Duration,
    /// What is done on purpose to what subscribers receive.
    pub impair: Vec<ImpairSpec>,
    /// Faults on a schedule.
    pub faults: Vec<FaultSpec>,
    /// Media worker threads.
    pub workers: Option<u32>,
    /// Cores of the workers.
    pub cores: Option<CoreList>,
    /// UDP backend.
    pub backend: Backend,
    /// Receive buffer asked of the kernel for each peer's socket.
    pub receive_buffer_bytes: usize,
    /// Memory of each worker's packet ring.
    pub packet_ring_bytes: Option<usize>,
    /// The embedded SFU.
    pub embedded: EmbeddedDraft,
    /// What the run has to keep.
    pub thresholds: Vec<Threshold>,
    /// The flight recorder.
    pub capture: CaptureDraft,
    /// Prometheus endpoints of the server.
    pub server_metrics: Vec<Url>,
    /// Who is told the run's metrics, as written.
    pub otlp: Option<Secret>,
    /// File with certificates to trust.
    pub ca: Option<PathBuf>,
    /// HTTP proxy of signalling, or `none`.
    pub proxy: Option<Secret>,
    /// Longest signalling message taken of the server.
    pub message_bytes_max: Option<usize>,
    /// Stages.
    pub stages: Vec<Stage>,
    /// How subscribers come and go without stages.
    pub audience: AudienceDraft,
    /// How many subscribers rooms have, drawn; needs a seed.
    pub room_sizes: Option<RoomSizes>,
    /// Subscribers join hidden.
    pub hidden: bool,
    /// What subscribers show.
    pub layout: Option<LayoutChoice>,
    /// Who chooses the tracks.
    pub subscribe_mode: Option<SubscribeMode>,
    /// Audio publishers take turns.
    pub simulate_speakers: bool,
    /// Parts of the subscribers that differ from the rest.
    pub cohorts: Vec<CohortSpec>,
    /// Rooms that differ from the others.
    pub room_drafts: Vec<RoomDraft>,
    /// Subscribers join without subscribing to anything.
    pub no_media: bool,
    /// What join tokens say besides.
    pub profile: Profile,
    /// Updates that each participant makes of itself, per second.
    pub metadata_updates_per_second: Option<f64>,
    /// File with join tokens that others have made.
    pub token_file: Option<PathBuf>,
}

/// Options of the embedded SFU.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EmbeddedDraft {
    /// Its cores.
    pub cores: Option<CoreList>,
    /// What it drops and holds back.
    pub short: Shorthand,
    /// Its impairments.
    pub impair: Vec<ImpairSpec>,
    /// Further flags of `stampede sfu` as they were given, each one word.
    pub flags: Vec<String>,
    /// What those flags drop and hold back, in the place of what `short` does.
    pub flags_short: Shorthand,
    /// What those flags come to otherwise.
    pub options: SfuOptions,
}

/// Options of the flight recorder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaptureDraft {
    /// Its folder; without one there is no flight recorder.
    pub dir: Option<PathBuf>,
    /// How far back it goes.
    pub span: Duration,
    /// How many of the worst subscribers are written.
    pub worst: u32,
    /// Headers only.
    pub headers: bool,
}

impl Default for CaptureDraft {
    fn default() -> Self {
        Self { dir: None, span: Duration::from_secs(10), worst: 5, headers: false }
    }
}

impl Default for Draft {
    fn default() -> Self {
        Self {
            url: None,
            api_key: None,
            api_secret: None,
            room: None,
            rooms: 1,
            video_publishers: None,
            audio_publishers: None,
            subscribers: None,
            participants: None,
            participant_tracks: ParticipantTracks::default(),
            screen_share_publishers: 0,
            screen_share_audio: false,
            screen_share_codec: None,
            screen_share: Vec::new(),
            data: DataDraft::default(),
            rpc: RpcDraft::default(),
            duration: None,
            joins_per_second: 40.0,
            retry: 0,
            retry_sleep: Duration::from_secs(1),
            reconnect: Reconnect::default(),
            signal: Signal::default(),
            feedback: CongestionFeedback::default(),
            adapt: false,
            transport: Transport::default(),
            seed: None,
            resolution: Resolution::High,
            publish_resolution: PublishResolution::default(),
            video_codec: None,
            backup_codec: BackupCodec::default(),
            subscribe_codecs: None,
            scalability_mode: None,
            video_frame_rate: None,
            no_simulcast: false,
            dynacast: false,
            video: Vec::new(),
            audio: None,
            no_audio_red: false,
            no_audio_dtx: false,
            record: None,
            record_subscribers: None,
            playout_deadline: Duration::from_millis(500),
            interruption_min: Duration::from_secs(1),
            join_grace: Duration::from_secs(5),
            impair: Vec::new(),
            faults: Vec::new(),
            workers: None,
            cores: None,
            backend: Backend::Auto,
            receive_buffer_bytes: RECEIVE_BUFFER_BYTES,
            packet_ring_bytes: None,
            embedded: EmbeddedDraft::default(),
            thresholds: Vec::new(),
            capture: CaptureDraft::default(),
            server_metrics: Vec::new(),
            otlp: None,
            ca: None,
            proxy: None,
            message_bytes_max: None,
            stages: Vec::new(),
            audience: AudienceDraft::default(),
            room_sizes: None,
            hidden: false,
            layout: None,
            subscribe_mode: None,
            simulate_speakers: false,
            cohorts: Vec::new(),
            room_drafts: Vec::new(),
            no_media: false,
            profile: Profile::default(),
            metadata_updates_per_second: None,
            token_file: None,
        }
    }
}
