//! Flags of `stampede run`. Names shared with `lk perf load-test` mean the same there.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use stampede_engine::ImpairSpec as Spec;
use stampede_media::Codec;

use super::Secret;
use super::network::NetworkFlags;
use super::shape::ShapeFlags;
use super::values::{self, BackendFlag, CoreList, Output, Resolution};
use crate::report::threshold::Thresholds;

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
    /// Further tries for a participant that was refused or dropped.
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
    /// Seed of everything random (publishers' phases, the embedded SFU's faults); in the report.
    #[arg(long, value_name = "N", help_heading = "Scenario")]
    pub seed: Option<u64>,
    /// Simulcast layer that subscribers ask for.
    #[arg(long, value_enum, default_value = "high", value_name = "LAYER", help_heading = "Media")]
    pub video_resolution: Resolution,
    /// Codec of published video: vp8, vp9, h264 or av1 [default: that of --video, else vp8]. There
    /// are built-in clips of all four; only the VP8 one is simulcast.
    #[arg(
        long,
        value_name = "CODEC",
        value_parser = values::video_codec,
        help_heading = "Media"
    )]
    pub video_codec: Option<Codec>,
    /// Frames per second of an H.264 --video [default: what its stream says, else 30].
    #[arg(
        long,
        value_name = "FPS",
        value_parser = values::frame_rate,
        help_heading = "Media"
    )]
    pub video_frame_rate: Option<f64>,
    /// Publish one layer only: the given file, or the built-in 720p clip.
    #[arg(long, help_heading = "Media")]
    pub no_simulcast: bool,
    /// Publishers stop sending simulcast layers that the server says nobody wants (dynacast), as a
    /// browser does, and resume with a keyframe; without it such pauses are only counted.
    #[arg(long, help_heading = "Media")]
    pub dynacast: bool,
    /// IVF (VP8, VP9, AV1) or Annex B (H.264) file to publish, looped; up to three of one codec for
    /// simulcast, lowest layer first.
    #[arg(long, value_name = "FILE", help_heading = "Media")]
    pub video: Vec<PathBuf>,
    /// Ogg (Opus) file to publish, looped.
    #[arg(long, value_name = "FILE", help_heading = "Media")]
    pub audio: Option<PathBuf>,
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
    /// Media worker threads [default: one for each core of --cores].
    #[arg(long, value_name = "N", help_heading = "Machine")]
    pub workers: Option<u32>,
    /// CPU cores to pin the workers to, like 1,2-5 [default: all but one of those allowed].
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
    pub backend: BackendFlag,
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
    /// Memory of each worker's ring with --backend packet_ring, like 64MiB. Packets that find it
    /// full are dropped and counted [default: 24KiB for each peer of a worker, 8MiB at least].
    #[arg(
        long,
        value_name = "SIZE",
        value_parser = values::ring_bytes,
        help_heading = "Machine"
    )]
    pub packet_ring: Option<usize>,
    /// CPU cores of the embedded SFU, a media worker each [default: the last one allowed].
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
    /// Scrape the server's own Prometheus endpoint once a second; may be repeated, once a server.
    #[arg(
        long,
        value_name = "URL",
        value_parser = values::metrics_url,
        help_heading = "Server"
    )]
    pub server_metrics: Vec<reqwest::Url>,
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
}
