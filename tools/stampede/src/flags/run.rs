//! Flags of `stampede run`. Names shared with `lk perf load-test` mean the same there.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use stampede_impair::{Rng, Spec};
use stampede_output::one_line;

use stampede_report::Failure;
use stampede_report::out::Output;
use stampede_report::threshold::Thresholds;
use stampede_scenario::values::{self, Backend, CoreList, PublishResolution, Resolution};
use stampede_scenario::{
    BackupCodec, CaptureDraft, Codec, CodecList, CodecMix, CohortSpec, CongestionFeedback,
    DataDraft, DataKinds, DataTrackSubscribe, Draft, EmbeddedDraft, FaultSpec, Layering,
    LayoutChoice, ParticipantTracks, Reconnect, RoomDraft, RpcDraft, Secret, Shorthand, Signal,
    Stage, SubscribeMode, Transport,
};
use stampede_sfu::SfuOptions;

use super::audience::AudienceFlags;
use super::find::FindFlags;
use super::hosts::HostsFlags;
use super::people::PeopleFlags;
use super::{Command, Parsed, SfuFlags, parse, sfu_options};

/// Flags of `stampede sfu` that a run sets for the SFU it starts.
const SET_BY_THE_RUN: [&str; 4] = ["--api-key", "--api-secret", "--embedded-child", "--seed"];

/// Join a LiveKit server (or the embedded SFU) and report what was received.
///
/// Without --url it starts the embedded SFU on loopback, publishes the built-in 720p simulcast VP8
/// and Opus clips and joins 200 subscribers for 20 seconds.
#[derive(Debug, Clone, Args)]
pub(crate) struct RunFlags {
    /// Server to join, ws:// or wss://; without it the embedded SFU is started on loopback.
    #[arg(long, env = "LIVEKIT_URL", value_name = "URL", help_heading = "Server")]
    pub url: Option<String>,
    /// API key of the server.
    #[arg(
        long,
        env = "LIVEKIT_API_KEY",
        hide_env_values = true,
        value_name = "KEY",
        help_heading = "Server"
    )]
    pub api_key: Option<String>,
    /// API secret of the server; better given in the environment.
    #[arg(
        long,
        env = "LIVEKIT_API_SECRET",
        hide_env_values = true,
        value_name = "SECRET",
        help_heading = "Server"
    )]
    pub api_secret: Option<Secret>,
    /// File of join tokens that others have made, one a line: for those who have no API secret. They
    /// name identities and rooms; the first room in the file is the run's first, and of a room's
    /// tokens the first are its publishers'.
    #[arg(long, value_name = "FILE", help_heading = "Server")]
    pub token_file: Option<PathBuf>,
    /// Room to join [default: stampede-RUNID]; with --rooms N its name gets -1 to -N.
    #[arg(long, value_name = "NAME", help_heading = "Scenario")]
    pub room: Option<String>,
    /// Rooms; publishers and subscribers are counted per room.
    #[arg(long, default_value_t = 1, value_name = "N", help_heading = "Scenario")]
    pub rooms: u32,
    /// Video publishers per room [default: 1 without --url, else 0].
    #[arg(long, value_name = "N", help_heading = "Scenario")]
    pub video_publishers: Option<u32>,
    /// Audio publishers per room [default: 1 without --url, else 0]; the first ones are the video
    /// publishers, which then send both.
    #[arg(long, value_name = "N", help_heading = "Scenario")]
    pub audio_publishers: Option<u32>,
    /// Subscribers per room [default: 200 without --url, else 0].
    #[arg(long, value_name = "N", help_heading = "Scenario")]
    pub subscribers: Option<u32>,
    /// Participants per room that publish and receive over one connection, as in a meeting; given
    /// without --url they join alone.
    #[arg(long, value_name = "N", help_heading = "Scenario")]
    pub participants: Option<u32>,
    /// What --participants publish: both is video and audio; video or audio is that alone.
    #[arg(long, default_value = "both", value_name = "TRACKS", help_heading = "Scenario")]
    pub participant_tracks: ParticipantTracks,
    /// Who share their screen, per room, beside what they publish otherwise: the first publishers, then
    /// the first of --participants, then publishers that send nothing else. The built-in clips are in
    /// 1080p at 5 frames/s, mostly still; those of VP8, H.264 and H.265 simulcast of 540p and 1080p.
    #[arg(long, default_value_t = 0, value_name = "N", help_heading = "Scenario")]
    pub screen_share_publishers: u32,
    /// A shared screen has sound: a second audio track, without RED and DTX.
    #[arg(long, help_heading = "Scenario")]
    pub screen_share_audio: bool,
    /// Who sends data messages, per room: the first of the other publishers, then of --participants,
    /// then publishers that send nothing else. Everybody in the room who receives is to get them.
    #[arg(long, value_name = "N", help_heading = "Data")]
    pub data_publishers: Option<u32>,
    /// Messages of each kind that a data publisher sends in a second, up to 1,000 [default: 10].
    #[arg(long, value_name = "N", value_parser = values::data_rate, help_heading = "Data")]
    pub data_rate: Option<f64>,
    /// Payload of a data message, 32 to 60,000 bytes [default: 256].
    #[arg(long, value_name = "SIZE", value_parser = values::data_bytes, help_heading = "Data")]
    pub data_size: Option<usize>,
    /// How data messages travel: reliable is in order and sent again until they are there, lossy is
    /// sent once, track is as frames of a data track, sent once too; both is reliable and lossy, all
    /// is all three, as many of each; several with commas [default: both].
    #[arg(long, value_name = "KIND", help_heading = "Data")]
    pub data_kind: Option<DataKinds>,
    /// How subscribers get data tracks: auto, the server subscribes everybody to all of them; manual,
    /// each subscribes to each of them by itself, as users of LiveKit's SDKs do; none, not at all
    /// [default: as --subscribe-mode].
    #[arg(long, value_name = "HOW", help_heading = "Data")]
    pub data_track_subscribe: Option<DataTrackSubscribe>,
    /// Who calls others (LiveKit's RPC), per room: the first that join of publishers, then of
    /// --participants, then of subscribers. Each calls all others of its room in turn, and everybody
    /// answers with what it was called with.
    #[arg(long, value_name = "N", help_heading = "RPC")]
    pub rpc_callers: Option<u32>,
    /// Calls that a caller makes in a second, up to 1,000 [default: 1].
    #[arg(long, value_name = "N", value_parser = values::rpc_rate, help_heading = "RPC")]
    pub rpc_rate: Option<f64>,
    /// Payload of a call, up to 60,000 bytes [default: 256].
    #[arg(long, value_name = "SIZE", value_parser = values::rpc_bytes, help_heading = "RPC")]
    pub rpc_size: Option<usize>,
    /// How long an answer may take, 100ms to 60s [default: 15s]; an acknowledgement may take 7 s.
    #[arg(long, value_name = "DURATION", value_parser = values::rpc_timeout, help_heading = "RPC")]
    pub rpc_timeout: Option<Duration>,
    /// The method that is called, and answered [default: stampede.echo].
    #[arg(long, value_name = "NAME", value_parser = values::rpc_method, help_heading = "RPC")]
    pub rpc_method: Option<String>,
    /// Identity of who is called, an agent for instance, instead of this run's own participants.
    #[arg(long, value_name = "IDENTITY", help_heading = "RPC")]
    pub rpc_to: Option<String>,
    /// How long to hold once everybody was started [default: 20s without --url, else 60s].
    #[arg(
        long,
        value_name = "DUR",
        value_parser = values::duration_above_zero,
        help_heading = "Scenario"
    )]
    pub duration: Option<Duration>,
    /// Joins started per second over all rooms, up to 100,000.
    #[arg(
        long,
        default_value = "40",
        value_name = "N",
        value_parser = values::joins_per_second,
        help_heading = "Scenario"
    )]
    pub num_per_second: f64,
    /// Further tries of a join that failed. How who was connected comes back is --reconnect's.
    #[arg(long, default_value_t = 0, value_name = "N", help_heading = "Scenario")]
    pub retry: u32,
    /// Pause before each further try.
    #[arg(
        long,
        default_value = "1s",
        value_name = "DUR",
        value_parser = values::duration,
        help_heading = "Scenario"
    )]
    pub retry_sleep: Duration,
    /// How who was connected comes back: sdk is livekit-client's schedule (10 tries), none is not at
    /// all, N so many tries of that schedule.
    #[arg(long, default_value = "sdk", value_name = "HOW", help_heading = "Scenario")]
    pub reconnect: Reconnect,
    /// Signalling protocol: auto is v1 with a single peer connection, as LiveKit's SDKs, or v0 where
    /// the server knows no v1; v0 and v1 are that one alone.
    #[arg(long, default_value = "auto", value_name = "VERSION", help_heading = "Scenario")]
    pub signal: Signal,
    /// What subscribers tell the server of congestion: chrome is its REMB, or the arrival times of all
    /// packets where the server wants those (TWCC); none is neither, and no server then sends less.
    #[arg(long, default_value = "chrome", value_name = "HOW", help_heading = "Scenario")]
    pub feedback: CongestionFeedback,
    /// Publishers obey the server's feedback, as browsers do: layers that the way to it has no room for
    /// are not sent, and packets are paced.
    #[arg(long, help_heading = "Scenario")]
    pub adapt: bool,
    /// By what media goes: udp; tcp is ICE over TCP to the server's TCP candidates (RFC 6544); turn-udp,
    /// turn-tcp and turn-tls are the TURN servers that the server names, reached so; auto tries UDP, TCP
    /// where no UDP works within two seconds, and TURN after four. A named one is tried alone.
    #[arg(long, default_value = "auto", value_name = "WAY", help_heading = "Scenario")]
    pub transport: Transport,
    /// Seed of everything random (publishers' phases, faults, audiences); in the report.
    #[arg(long, value_name = "N", help_heading = "Scenario")]
    pub seed: Option<u64>,
    /// Simulcast layer that subscribers ask for.
    #[arg(long, value_enum, default_value = "high", value_name = "LAYER", help_heading = "Media")]
    pub video_resolution: Resolution,
    /// Size of the built-in clips: 360p is simulcast of 180p and 360p, 1080p of 180p, 360p and 1080p,
    /// 2 s long, both at 25 frames/s and as livekit-client publishes them; of AV1 either is its largest
    /// size alone. Neither has layers within a stream, as VP9's and AV1's of 720p have.
    #[arg(long, value_enum, default_value = "720p", value_name = "SIZE", help_heading = "Media")]
    pub publish_resolution: PublishResolution,
    /// Codec of published video: vp8, vp9, h264, h265 or av1, or several with the shares of publishers
    /// that send them, like vp8:70,h265:30 [default: that of --video, else vp8]. There are built-in
    /// clips of all five: VP8's, H.264's and H.265's are simulcast, VP9's and AV1's scalable, and VP9's
    /// simulcast with --scalability-mode none.
    #[arg(long, value_name = "CODEC", help_heading = "Media")]
    pub video_codec: Option<CodecMix>,
    /// What VP9, AV1 and H.265 are published in besides, once the server says that somebody can't receive
    /// them: built-in clips, simulcast.
    #[arg(long, value_enum, default_value = "vp8", value_name = "CODEC", help_heading = "Media")]
    pub backup_codec: BackupCodec,
    /// Video codecs that subscribers can receive, like vp8,h264 [default: all].
    #[arg(long, value_name = "CODECS", help_heading = "Media")]
    pub subscribe_codecs: Option<CodecList>,
    /// How VP9 and AV1 are divided into layers within one stream (SVC), told by dependency descriptors:
    /// L3T3_KEY is three spatial layers of three temporal ones, as livekit-client publishes; L1T3
    /// temporal ones alone; none neither [default: L3T3_KEY, of a --video none].
    #[arg(long, value_name = "MODE", help_heading = "Media")]
    pub scalability_mode: Option<Layering>,
    /// Frames per second of an H.264 or H.265 --video [default: what its stream says, else 30].
    #[arg(
        long,
        value_name = "FPS",
        value_parser = values::frame_rate,
        help_heading = "Media"
    )]
    pub video_frame_rate: Option<f64>,
    /// Publish one layer only: the given file, or the largest built-in clip.
    #[arg(long, help_heading = "Media")]
    pub no_simulcast: bool,
    /// Publishers stop sending simulcast layers that the server says nobody wants (dynacast), as a
    /// browser does, and resume with a keyframe; without it such pauses are only counted.
    #[arg(long, help_heading = "Media")]
    pub dynacast: bool,
    /// IVF (VP8, VP9, AV1) or Annex B (H.264, H.265) file to publish, looped; up to three of one codec for
    /// simulcast, lowest layer first.
    #[arg(long, value_name = "FILE", help_heading = "Media")]
    pub video: Vec<PathBuf>,
    /// Codec of shared screens: vp8, vp9, h264, h265 or av1 [default: that of --screen-share, else vp8].
    #[arg(long, value_name = "CODEC", value_parser = values::video_codec, help_heading = "Media")]
    pub screen_share_codec: Option<Codec>,
    /// File to publish as a shared screen, as --video takes it; two of one codec for simulcast, the
    /// smaller one first.
    #[arg(long, value_name = "FILE", help_heading = "Media")]
    pub screen_share: Vec<PathBuf>,
    /// Ogg (Opus) file to publish, looped.
    #[arg(long, value_name = "FILE", help_heading = "Media")]
    pub audio: Option<PathBuf>,
    /// Publish plain Opus, without the packet before in each packet (RED), by which single losses are
    /// repaired.
    #[arg(long, help_heading = "Media")]
    pub no_audio_red: bool,
    /// Publish silence as 50 packets a second instead of leaving it out (DTX).
    #[arg(long, help_heading = "Media")]
    pub no_audio_dtx: bool,
    /// Folder for recordings (IVF and Ogg) of what recording subscribers receive.
    #[arg(long, value_name = "DIR", help_heading = "Media")]
    pub record: Option<PathBuf>,
    /// How many subscribers record, over all rooms [default: 1 with --record].
    #[arg(long, value_name = "N", help_heading = "Media")]
    pub record_subscribers: Option<u32>,
    /// How long after a gap was seen a repaired packet still counts as in time.
    #[arg(
        long,
        default_value = "500ms",
        value_name = "DUR",
        value_parser = values::duration_above_zero,
        help_heading = "Media"
    )]
    pub playout_deadline: Duration,
    /// From when on a gap without a playable frame is an interruption.
    #[arg(
        long,
        default_value = "1s",
        value_name = "DUR",
        value_parser = values::duration_above_zero,
        help_heading = "Media"
    )]
    pub interruption_min: Duration,
    /// How long after its scheduled join a subscriber is expected to watch at the latest.
    #[arg(
        long,
        default_value = "5s",
        value_name = "DUR",
        value_parser = values::duration,
        help_heading = "Media"
    )]
    pub join_grace: Duration,
    /// What is done on purpose to what subscribers receive, before it is counted:
    /// cohort=10%,loss=1%,burst=5,delay=50ms,jitter=10ms,reorder=0.5%,duplicate=0.1%,rate=1Mbps,
    /// outage=2s@10s, any of them; may be repeated for further cohorts.
    #[arg(long, value_name = "SPEC", help_heading = "Faults")]
    pub impair: Vec<Spec>,
    /// A fault on a schedule: signal_drop, signal_stall, network_change, outage, leave_rejoin, move
    /// or simulate=NAME, then any of for=5s,at=10s,every=30s,spread=2s,share=10%,who=subscribers,
    /// cohort=NAME; may be repeated (docs/scenarios.md, "Faults on a schedule").
    #[arg(long, value_name = "SPEC", help_heading = "Faults")]
    pub fault: Vec<FaultSpec>,
    /// Media worker threads [default: one for each core of --cores].
    #[arg(long, value_name = "N", help_heading = "Machine")]
    pub workers: Option<u32>,
    /// CPU cores to pin the workers to, like 1,2-5 [default: what the embedded SFU and signalling leave;
    /// docs/load-box.md, "Cores"].
    #[arg(long, value_name = "LIST", help_heading = "Machine")]
    pub cores: Option<CoreList>,
    /// UDP backend of the workers.
    #[arg(
        long,
        value_enum,
        default_value = "auto",
        value_name = "BACKEND",
        help_heading = "Machine"
    )]
    pub backend: Backend,
    /// Receive buffer asked of the kernel for each peer's socket, like 256kB or 1MiB. It grants no
    /// more than net.core.rmem_max, and what finds no room is dropped and counted.
    #[arg(
        long,
        default_value = "1MiB",
        value_name = "SIZE",
        value_parser = values::buffer_bytes,
        help_heading = "Machine"
    )]
    pub receive_buffer: usize,
    /// Memory of each worker's ring where the backend is packet_ring, like 64MiB, rounded down to a
    /// power of two. What finds it full waits in the sockets [default: 24KiB for each peer of a
    /// worker, 8MiB at least, rounded up].
    #[arg(
        long,
        value_name = "SIZE",
        value_parser = values::ring_bytes,
        help_heading = "Machine"
    )]
    pub packet_ring: Option<usize>,
    /// CPU cores of the embedded SFU, a media worker each [default: docs/load-box.md, "Cores"].
    #[arg(long, value_name = "LIST", help_heading = "Embedded SFU (without --url)")]
    pub embedded_cores: Option<CoreList>,
    /// Share of media packets the embedded SFU drops on their way to each subscriber.
    #[arg(
        long,
        value_name = "PERCENT",
        value_parser = values::percent,
        help_heading = "Embedded SFU (without --url)"
    )]
    pub embedded_drop: Option<f64>,
    /// Mean length in packets of the embedded SFU's bursts of drops.
    #[arg(
        long,
        value_name = "N",
        value_parser = values::burst,
        help_heading = "Embedded SFU (without --url)"
    )]
    pub embedded_drop_burst: Option<u32>,
    /// How long the embedded SFU holds each media packet back.
    #[arg(
        long,
        value_name = "DUR",
        value_parser = values::duration,
        help_heading = "Embedded SFU (without --url)"
    )]
    pub embedded_delay: Option<Duration>,
    /// Impairments, as in --impair, that the embedded SFU makes on the way to each subscriber; may be
    /// repeated.
    #[arg(long, value_name = "SPEC", help_heading = "Embedded SFU (without --url)")]
    pub embedded_impair: Vec<Spec>,
    /// A flag of `stampede sfu` for the embedded SFU, like --embedded-flag=--refuse-joins=10%; may be
    /// repeated.
    #[arg(
        long,
        value_name = "FLAG",
        allow_hyphen_values = true,
        help_heading = "Embedded SFU (without --url)"
    )]
    pub embedded_flag: Vec<String>,
    /// What the run has to keep to pass, like 'video.loss_rate<1%' or 'join.failed==0 abort';
    /// may be repeated.
    ///
    /// KEY OP VALUE, with any numeric key of the JSON report, joined by && if there are more;
    /// 'abort', or 'abort after 10s' from the start, ends the run when it is crossed. Exit code
    /// 99.
    #[arg(long, value_name = "EXPR", help_heading = "Output")]
    pub threshold: Vec<Thresholds>,
    /// Write the report, as json=FILE, html=FILE, csv=FILE (a row for each stream),
    /// markdown=FILE or junit=FILE; - is stdout; may be repeated.
    #[arg(long, value_name = "KIND=FILE", help_heading = "Output")]
    pub out: Vec<Output>,
    /// Folder for the flight recorder: the last seconds of packets (pcapng, decrypted) and a text
    /// timeline of the signalling of the worst subscribers, at the end and on SIGUSR1.
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    pub capture: Option<PathBuf>,
    /// Seconds of packets that the flight recorder keeps.
    #[arg(
        long,
        default_value_t = 10,
        value_name = "N",
        value_parser = clap::value_parser!(u64).range(1..=600),
        help_heading = "Output"
    )]
    pub capture_seconds: u64,
    /// How many of the worst subscribers the flight recorder writes.
    #[arg(
        long,
        default_value_t = 5,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=1_000),
        help_heading = "Output"
    )]
    pub capture_peers: u32,
    /// Capture RTP headers and lengths only, which takes an eighth of the memory or less.
    #[arg(long, help_heading = "Output")]
    pub capture_headers: bool,
    /// Serve the run's figures for Prometheus at http://ADDR/metrics, such as 127.0.0.1:9464.
    #[arg(long, value_name = "ADDR", help_heading = "Output")]
    pub prometheus: Option<SocketAddr>,
    /// Push the run's figures as OpenTelemetry metrics (OTLP, protobuf over HTTP) each 5 s and at the
    /// end, to URL/v1/metrics: http://127.0.0.1:4318 of a Collector, http://127.0.0.1:9090/api/v1/otlp
    /// of Prometheus. Headers that it wants are taken of OTEL_EXPORTER_OTLP_HEADERS.
    #[arg(long, value_name = "URL", help_heading = "Output")]
    pub otlp: Option<Secret>,
    /// Scrape the server's own Prometheus endpoint once a second; may be repeated, once a server.
    #[arg(
        long,
        value_name = "URL",
        value_parser = values::metrics_url,
        help_heading = "Server"
    )]
    pub server_metrics: Vec<url::Url>,
    /// Plain lines instead of the full-screen view.
    #[arg(long, help_heading = "Output")]
    pub no_tui: bool,
    /// No progress at all; errors and the summary only.
    #[arg(long, help_heading = "Output")]
    pub quiet: bool,
    #[command(flatten)]
    pub network: NetworkFlags,
    #[command(flatten)]
    pub shape: ShapeFlags,
    #[command(flatten)]
    pub together: HostsFlags,
}

/// Flags of the way to the server.
#[derive(Debug, Clone, Args)]
pub(crate) struct NetworkFlags {
    /// PEM file with certificates to trust besides those of the system (or of SSL_CERT_FILE), such
    /// as a private CA's.
    #[arg(long, value_name = "FILE", help_heading = "Server")]
    pub ca: Option<PathBuf>,
    #[allow(rustdoc::broken_intra_doc_links, reason = "the brackets are for people who read help")]
    /// HTTP proxy for signalling, http://[USER:PASSWORD@]HOST:PORT, or 'none' [default: HTTPS_PROXY,
    /// HTTP_PROXY or ALL_PROXY, but never for loopback]. NO_PROXY is obeyed. Media does not use it.
    #[arg(long, value_name = "URL", help_heading = "Server")]
    pub proxy: Option<Secret>,
    /// Longest signalling message taken of the server, 64KiB to 64MiB; a longer one ends the session. A
    /// room is announced in one message, of 70 bytes for who only receives to 500 for who publishes, and
    /// their metadata: raise it where others fill the room with thousands. LiveKit's SDKs take more
    /// [default: 2MiB, or what the run's own largest room may need].
    #[arg(
        long,
        value_name = "SIZE",
        value_parser = values::message_bytes,
        help_heading = "Server"
    )]
    pub message_size_max: Option<usize>,
}

/// Flags of the shape of a run.
#[derive(Debug, Clone, Args)]
pub(crate) struct ShapeFlags {
    /// TOML file with any of these options (`stampede init` writes one); flags and environment
    /// override it.
    #[arg(long, value_name = "FILE", help_heading = "Scenario")]
    pub scenario: Option<PathBuf>,
    /// Within DUR go evenly to SUBS subscribers over all rooms; repeat it for further stages. When
    /// the number falls, those who joined last leave first. What is measured begins when the first
    /// stage ends; --duration holds after the last one [default then: 0s after two or more].
    #[arg(long, value_name = "DUR:SUBS", help_heading = "Scenario")]
    pub stage: Vec<Stage>,
    /// Subscribers join hidden: the server tells nobody about them, which spares it work.
    #[arg(long, help_heading = "Scenario")]
    pub hidden: bool,
    /// What subscribers show: speaker is one participant at 1280x720 and five at 320x180, 3x3 nine at
    /// 640x360, 4x4 and 5x5 as many at 320x180; without it everything at --video-resolution.
    #[arg(long, value_enum, value_name = "LAYOUT", help_heading = "Media")]
    pub layout: Option<LayoutChoice>,
    /// Who chooses the tracks: auto subscribes to all of them (videos that a layout does not show are
    /// switched off), manual to each by itself [default: auto, with --layout manual].
    #[arg(long, value_enum, value_name = "MODE", help_heading = "Media")]
    pub subscribe_mode: Option<SubscribeMode>,
    /// Audio publishers take turns in being loud: somebody speaks for 5 s, then there is 1 s of pause.
    #[arg(long, help_heading = "Media")]
    pub simulate_speakers: bool,
    #[command(flatten)]
    pub people: PeopleFlags,
    #[command(flatten)]
    pub audience: AudienceFlags,
    #[command(flatten)]
    pub find: FindFlags,
    /// From the scenario file.
    #[arg(skip)]
    pub cohorts: Vec<CohortSpec>,
    /// From the scenario file.
    #[arg(skip)]
    pub room_drafts: Vec<RoomDraft>,
}

impl RunFlags {
    /// What they ask for.
    ///
    /// # Errors
    /// Exit code 104: a flag for the embedded SFU that `stampede sfu` would refuse.
    pub(crate) fn draft(self) -> Result<Draft, Failure> {
        let Self { network, shape, .. } = self;
        let (options, flags_short) = embedded_options(&self.embedded_flag)?;
        let room_sizes = shape.audience.room_sizes.clone();
        // Rooms are drawn before a run has a seed; of the same width as the one it would take.
        let drawn = || room_sizes.as_ref().map(|_| Rng::new().u32(..).into());
        Ok(Draft {
            url: self.url,
            api_key: self.api_key,
            api_secret: self.api_secret,
            room: self.room,
            rooms: self.rooms,
            video_publishers: self.video_publishers,
            audio_publishers: self.audio_publishers,
            subscribers: self.subscribers,
            participants: self.participants,
            participant_tracks: self.participant_tracks,
            screen_share_publishers: self.screen_share_publishers,
            screen_share_audio: self.screen_share_audio,
            screen_share_codec: self.screen_share_codec,
            screen_share: self.screen_share,
            data: DataDraft {
                publishers: self.data_publishers,
                rate: self.data_rate,
                bytes: self.data_size,
                kinds: self.data_kind,
                subscribe: self.data_track_subscribe,
            },
            rpc: RpcDraft {
                callers: self.rpc_callers,
                rate: self.rpc_rate,
                bytes: self.rpc_size,
                timeout: self.rpc_timeout,
                method: self.rpc_method,
                to: self.rpc_to,
            },
            duration: self.duration,
            joins_per_second: self.num_per_second,
            retry: self.retry,
            retry_sleep: self.retry_sleep,
            reconnect: self.reconnect,
            signal: self.signal,
            feedback: self.feedback,
            adapt: self.adapt,
            transport: self.transport,
            seed: self.seed.or_else(drawn),
            resolution: self.video_resolution,
            publish_resolution: self.publish_resolution,
            video_codec: self.video_codec,
            backup_codec: self.backup_codec,
            subscribe_codecs: self.subscribe_codecs,
            scalability_mode: self.scalability_mode,
            video_frame_rate: self.video_frame_rate,
            no_simulcast: self.no_simulcast,
            dynacast: self.dynacast,
            video: self.video,
            audio: self.audio,
            no_audio_red: self.no_audio_red,
            no_audio_dtx: self.no_audio_dtx,
            record: self.record,
            record_subscribers: self.record_subscribers,
            playout_deadline: self.playout_deadline,
            interruption_min: self.interruption_min,
            join_grace: self.join_grace,
            impair: self.impair,
            faults: self.fault,
            workers: self.workers,
            cores: self.cores,
            backend: self.backend,
            receive_buffer_bytes: self.receive_buffer,
            packet_ring_bytes: self.packet_ring,
            embedded: EmbeddedDraft {
                cores: self.embedded_cores,
                short: Shorthand {
                    drop: self.embedded_drop,
                    drop_burst: self.embedded_drop_burst,
                    delay: self.embedded_delay,
                },
                impair: self.embedded_impair,
                flags: self.embedded_flag,
                flags_short,
                options,
            },
            thresholds: self.threshold.into_iter().flat_map(|all| all.0).collect(),
            capture: CaptureDraft {
                dir: self.capture,
                span: Duration::from_secs(self.capture_seconds),
                worst: self.capture_peers,
                headers: self.capture_headers,
            },
            server_metrics: self.server_metrics,
            otlp: self.otlp,
            ca: network.ca,
            proxy: network.proxy,
            message_bytes_max: network.message_size_max,
            stages: shape.stage,
            audience: shape.audience.draft(),
            room_sizes,
            hidden: shape.hidden,
            layout: shape.layout,
            subscribe_mode: shape.subscribe_mode,
            simulate_speakers: shape.simulate_speakers,
            cohorts: shape.cohorts,
            room_drafts: shape.room_drafts,
            no_media: shape.people.no_media,
            metadata_updates_per_second: shape.people.metadata_updates_per_second,
            token_file: self.token_file,
            profile: shape.people.profile(),
        })
    }
}

/// What the flags of `--embedded-flag` come to; refused where `stampede sfu` would refuse them.
fn embedded_options(flags: &[String]) -> Result<(SfuOptions, Shorthand), Failure> {
    if flags.is_empty() {
        return Ok(Default::default());
    }
    for flag in flags {
        let refused = |why: &str| {
            let flag = one_line(flag);
            Err(Failure::config(format!("--embedded-flag {flag}: {why}")))
        };
        let name = flag.split('=').next().unwrap_or_default();
        if SET_BY_THE_RUN.contains(&name) {
            return refused("the run sets it itself");
        }
        match parse(["stampede", "sfu", flag.as_str()].map(Into::into)) {
            Ok(Parsed::Command(Command::Sfu(_))) if flag.starts_with("--") => {}
            Err(failure) => return refused(&failure.to_string()),
            Ok(_) => return refused("write it like --embedded-flag=--refuse-joins=10%"),
        }
    }
    let free_ports = ["stampede", "sfu", "--port=0", "--rtc-port=0"];
    let words = free_ports.into_iter().chain(flags.iter().map(String::as_str));
    match parse(words.map(Into::into))? {
        Parsed::Command(Command::Sfu(sfu)) => {
            // The run makes keys of its own; those of the environment are for a server.
            let api_key = SfuOptions::default().api_key;
            let sfu = SfuFlags { api_key, api_secret: None, ..*sfu };
            Ok((sfu_options(&sfu)?, sfu.short()))
        }
        _ => Err(Failure::config("--embedded-flag: write it like --embedded-flag=--malformed=1%")),
    }
}
