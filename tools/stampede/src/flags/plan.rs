//! From flags to a [`Plan`]: everything checked against files and against the other flags before
//! anything joins. The machine itself is looked at in [`crate::preflight`].

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use stampede_core::watch::Rules;
use stampede_engine::ImpairSpec;
use stampede_media::{ClipOptions, Codec, MediaClip, builtin};
use stampede_signaling::{ApiCredentials, ServerUrl};

use super::outputs::run_outputs;
use super::shape::{RoomDefaults, Shape, default_duration};
use super::values::{BackendFlag, CoreList, Output, Resolution};
use super::{Command, Network, Parsed, RunFlags, Secret, parse};
use crate::capture::CapturePlan;
use crate::exit::{Failure, one_line};
use crate::files;
use crate::report::threshold::Threshold;
use crate::run::Cohorts;

/// Participants allowed at a `*.livekit.cloud` address: its acceptable use policy forbids load
/// tests without permission.
const CLOUD_PARTICIPANTS_MAX: u64 = 50;
/// Longest room name; livekit-server's default limit is 256 (`limit.max_room_name_length`).
const ROOM_NAME_CHARS_MAX: usize = 240;
/// Most participants of one run; more is a typing error.
const PARTICIPANTS_MAX: u64 = 1_000_000;
/// Simulcast layers of LiveKit: q, h, f.
const LAYERS_MAX: usize = 3;

/// A run that can start.
#[derive(Debug)]
pub(crate) struct Plan {
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
    /// Per room.
    pub subscribers: u32,
    /// How long to hold after the ramp.
    pub duration: Duration,
    /// Joins started per second, over all rooms.
    pub joins_per_second: f64,
    /// Further tries for each participant.
    pub retry: u32,
    /// Pause before each.
    pub retry_sleep: Duration,
    /// Seed as given.
    pub seed: Option<u64>,
    /// Layer subscribers ask for.
    pub resolution: Resolution,
    /// What video publishers send, lowest layer first; empty without video publishers.
    pub video_layers: Vec<Arc<MediaClip>>,
    /// What has to be said before the run starts.
    pub notes: Vec<String>,
    /// What audio publishers send; `None` without audio publishers.
    pub audio_clip: Option<Arc<MediaClip>>,
    /// Recording, if any.
    pub record: Option<RecordPlan>,
    /// See [`RunFlags::dynacast`].
    pub dynacast: bool,
    /// See [`RunFlags::playout_deadline`].
    pub playout_deadline: Duration,
    /// See [`RunFlags::interruption_min`] and [`RunFlags::join_grace`].
    pub watch_rules: Rules,
    /// What is done on purpose to what subscribers receive.
    pub impair: Vec<ImpairSpec>,
    /// Worker threads as given.
    pub workers: Option<u32>,
    /// Worker cores as given.
    pub cores: Option<CoreList>,
    /// UDP backend.
    pub backend: BackendFlag,
    /// See [`RunFlags::receive_buffer`].
    pub receive_buffer_bytes: usize,
    /// See [`RunFlags::packet_ring`].
    pub packet_ring: Option<usize>,
    /// Reports to write.
    pub out: Vec<Output>,
    /// What the run has to keep.
    pub thresholds: Vec<Threshold>,
    /// The flight recorder, if any.
    pub capture: Option<CapturePlan>,
    /// Where to serve metrics.
    pub prometheus: Option<SocketAddr>,
    /// What to scrape.
    pub server_metrics: Vec<reqwest::Url>,
    /// How the server and its metrics are reached.
    pub network: Network,
    /// No full-screen view.
    pub no_tui: bool,
    /// No progress.
    pub quiet: bool,
    /// Rooms, stages, cohorts, layout.
    pub shape: Shape,
}

/// Where to join.
#[derive(Debug)]
pub(crate) enum Target {
    /// A child process of ours on loopback.
    Embedded(EmbeddedPlan),
    /// A server.
    Server(Server),
}

/// How to start the embedded SFU.
#[derive(Debug, Clone)]
pub(crate) struct EmbeddedPlan {
    /// Its cores as given.
    pub cores: Option<CoreList>,
    /// Share of packets it drops.
    pub drop: Option<f64>,
    /// Mean burst of drops.
    pub drop_burst: Option<u32>,
    /// How long it holds packets back.
    pub delay: Option<Duration>,
    /// Its impairments.
    pub impair: Vec<ImpairSpec>,
    /// Further flags of `stampede sfu`, each one word.
    pub flags: Vec<String>,
}

/// A server and the key to it.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    /// Where it listens.
    pub url: ServerUrl,
    /// The key to it.
    pub credentials: ApiCredentials,
}

/// What is recorded.
#[derive(Debug, Clone)]
pub(crate) struct RecordPlan {
    /// An existing, writable folder.
    pub dir: PathBuf,
    /// How many subscribers record, over all rooms.
    pub subscribers: u32,
}

impl Plan {
    /// Checks the flags and opens the media files.
    ///
    /// # Errors
    /// The first thing that is wrong, exit code 104.
    pub(crate) fn new(flags: RunFlags) -> Result<Self, Failure> {
        let embedded = flags.url.is_none();
        let default = |count: Option<u32>, standard: u32| {
            count.unwrap_or(if embedded { standard } else { 0 })
        };
        let video_publishers = default(flags.video_publishers, 1);
        let audio_publishers = default(flags.audio_publishers, 1);
        let subscribers = default(flags.subscribers, 200);
        if flags.rooms == 0 {
            return Err(Failure::config("--rooms 0: there must be at least one room"));
        }
        let defaults = RoomDefaults { video_publishers, audio_publishers, subscribers };
        check_rooms(&flags, defaults)?;
        let shape = Shape::new(&flags, defaults)?;
        let participants = (shape.publishers() + shape.subscribers_peak()) as u64;
        check_counts(&flags, participants)?;
        // Stages may start far more than are there at a time.
        too_many((shape.publishers() + shape.subscribers()) as u64)?;
        let target = target(&flags, participants)?;
        let network = network(&flags, &target)?;
        let capture = capture_plan(&flags)?;
        let rooms = &shape.rooms;
        let video_most = rooms.iter().map(|room| room.video_publishers).max().unwrap_or(0);
        let audio_most = rooms.iter().map(|room| room.audio_publishers).max().unwrap_or(0);
        let subscribers = match shape.stages.len() {
            0 => subscribers,
            _ => (shape.subscribers_peak() as u32).div_ceil(rooms.len() as u32),
        };
        if flags.packet_ring.is_some() && flags.backend != BackendFlag::PacketRing {
            return Err(Failure::config(format!(
                "--packet-ring: --backend {} has no packet ring; add --backend packet_ring, or \
                 leave --packet-ring out",
                flags.backend.name()
            )));
        }
        let mut notes: Vec<String> = network.note().into_iter().collect();
        let video_layers = video_layers(&flags, video_most, &mut notes)?;
        if let Some(clip) = video_layers.first().filter(|clip| clip.codec != Codec::Vp8)
            && flags.record.is_some()
        {
            return Err(Failure::config(format!(
                "--record: {} can't be recorded yet, only VP8 and Opus: publish VP8, or leave \
                 --record out",
                clip.codec
            )));
        }
        let record = record_plan(&flags, &shape)?;
        // Now that the folders are there, which are no files.
        let out = run_outputs(&flags)?;
        let plan = Self {
            record,
            video_layers,
            notes,
            audio_clip: audio_clip(&flags, audio_most)?,
            target,
            room: flags.room,
            rooms: rooms.len() as u32,
            video_publishers,
            audio_publishers,
            subscribers,
            duration: flags.duration.unwrap_or(default_duration(shape.stages.len(), embedded)),
            joins_per_second: flags.num_per_second,
            retry: flags.retry,
            retry_sleep: flags.retry_sleep,
            seed: flags.seed,
            resolution: flags.video_resolution,
            dynacast: flags.dynacast,
            playout_deadline: flags.playout_deadline,
            watch_rules: Rules {
                interruption_min: flags.interruption_min,
                join_grace: flags.join_grace,
                ..Rules::default()
            },
            impair: flags.impair,
            workers: flags.workers,
            cores: flags.cores,
            backend: flags.backend,
            receive_buffer_bytes: flags.receive_buffer,
            packet_ring: flags.packet_ring,
            out,
            thresholds: flags.threshold.into_iter().flat_map(|all| all.0).collect(),
            capture,
            prometheus: flags.prometheus,
            server_metrics: flags.server_metrics,
            network,
            no_tui: flags.no_tui,
            quiet: flags.quiet,
            shape,
        };
        plan.check_cohorts_of("--threshold", &plan.thresholds)?;
        Ok(plan)
    }

    /// Checks that thresholds on cohorts are on some that this run has; `flag` gave them.
    ///
    /// # Errors
    /// The first that is not, exit code 104.
    pub(crate) fn check_cohorts_of(
        &self,
        flag: &str,
        thresholds: &[Threshold],
    ) -> Result<(), Failure> {
        // Whom an --impair chooses does not matter to the names.
        let cohorts = Cohorts::of(self, 0);
        for test in thresholds {
            cohorts
                .check(&test.key)
                .map_err(|error| Failure::config(format!("{flag} {}: {error}", test.expr)))?;
        }
        Ok(())
    }

    /// All participants that join over the whole run.
    pub(crate) fn participants(&self) -> usize {
        self.shape.publishers() + self.shape.subscribers()
    }

    /// Most participants at one time.
    pub(crate) fn participants_peak(&self) -> usize {
        self.shape.publishers() + self.shape.subscribers_peak()
    }

    /// Memory of each worker's packet ring.
    pub(crate) fn packet_ring_bytes(&self, workers: usize) -> usize {
        let each = self.participants_peak().div_ceil(workers.max(1));
        self.packet_ring.unwrap_or_else(|| packet_ring_bytes(each))
    }
}

/// Memory of a packet ring for so many peers: a tenth of a second of 720p (1.7 Mbps, with headers
/// and what the ring takes for itself).
pub(crate) fn packet_ring_bytes(peers: usize) -> usize {
    const EACH: usize = 24 << 10;
    (peers * EACH).clamp(8 << 20, 1 << 30)
}

/// Before a list of rooms is made: there may be a great many by a slip.
fn check_rooms(flags: &RunFlags, defaults: RoomDefaults) -> Result<(), Failure> {
    let publishers = defaults.video_publishers.max(defaults.audio_publishers);
    let per_room = u64::from(publishers) + u64::from(defaults.subscribers);
    too_many(per_room.max(1) * u64::from(flags.rooms))
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

fn check_counts(flags: &RunFlags, participants: u64) -> Result<(), Failure> {
    if participants == 0 {
        return Err(Failure::config(
            "nobody would join: give --subscribers, --video-publishers or --audio-publishers",
        ));
    }
    too_many(participants)?;
    let named = flags.shape.room_tables.iter().filter_map(|table| table.name.as_ref());
    for room in flags.room.iter().chain(named) {
        let chars = room.chars().count();
        if chars == 0 || chars > ROOM_NAME_CHARS_MAX || room.chars().any(char::is_control) {
            return Err(Failure::config(format!(
                "--room: a room name has 1 to {ROOM_NAME_CHARS_MAX} printable characters, \
                 this one has {chars}"
            )));
        }
    }
    if flags.workers == Some(0) {
        return Err(Failure::config("--workers 0: at least one worker is needed"));
    }
    Ok(())
}

fn target(flags: &RunFlags, participants: u64) -> Result<Target, Failure> {
    let Some(text) = &flags.url else {
        return Ok(Target::Embedded(EmbeddedPlan {
            cores: flags.embedded_cores.clone(),
            drop: flags.embedded_drop,
            drop_burst: flags.embedded_drop_burst,
            delay: flags.embedded_delay,
            impair: flags.embedded_impair.clone(),
            flags: embedded_flags(&flags.embedded_flag)?,
        }));
    };
    for (given, flag) in [
        (flags.embedded_cores.is_some(), "--embedded-cores"),
        (flags.embedded_drop.is_some(), "--embedded-drop"),
        (flags.embedded_drop_burst.is_some(), "--embedded-drop-burst"),
        (flags.embedded_delay.is_some(), "--embedded-delay"),
        (!flags.embedded_impair.is_empty(), "--embedded-impair"),
        (!flags.embedded_flag.is_empty(), "--embedded-flag"),
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
    let odd = |text: &str| text.trim().chars().any(|c| c.is_whitespace() || c.is_control());
    let key = flags.api_key.as_deref().unwrap_or_default();
    let secret = flags.api_secret.as_ref().map_or("", Secret::expose);
    for (text, what) in [(key, "key"), (secret, "secret")] {
        if odd(text) {
            return Err(Failure::config(format!(
                "the API {what} holds a space or line break: copy it again"
            )));
        }
    }
    let credentials = ApiCredentials::new(key, secret).map_err(Failure::config)?;
    if let Some(warning) = credentials.warning() {
        tracing::info!("{warning}");
    }
    Ok(Target::Server(Server { url, credentials }))
}

fn network(flags: &RunFlags, target: &Target) -> Result<Network, Failure> {
    let server = match target {
        Target::Embedded(_) => None,
        Target::Server(server) => Some(&server.url),
    };
    let given = [(flags.network.ca.is_some(), "--ca"), (flags.network.proxy.is_some(), "--proxy")];
    let given = given.into_iter().find(|(given, _)| *given);
    if let Some((_, flag)) = given
        && server.is_none()
        && flags.server_metrics.is_empty()
    {
        return Err(Failure::config(format!(
            "{flag} is given without --url: the embedded SFU is reached directly; add --url \
             wss://HOST or leave {flag} out"
        )));
    }
    Network::new(&flags.network, server, &flags.server_metrics)
}

/// Flags for the embedded SFU; refused where `stampede sfu` would refuse them.
fn embedded_flags(flags: &[String]) -> Result<Vec<String>, Failure> {
    for flag in flags {
        let refused = |why: &str| {
            let flag = one_line(flag);
            Err(Failure::config(format!("--embedded-flag {flag}: {why}")))
        };
        let name = flag.split('=').next().unwrap_or_default();
        if ["--api-key", "--api-secret", "--embedded-child", "--seed"].contains(&name) {
            return refused("the run sets it itself");
        }
        match parse(["stampede", "sfu", flag.as_str()].map(Into::into)) {
            Ok(Parsed::Command(Command::Sfu(_))) if flag.starts_with("--") => {}
            Err(failure) => return refused(&failure.to_string()),
            Ok(_) => return refused("write it like --embedded-flag=--refuse-joins=10%"),
        }
    }
    Ok(flags.to_vec())
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

fn video_layers(
    flags: &RunFlags,
    publishers: u32,
    notes: &mut Vec<String>,
) -> Result<Vec<Arc<MediaClip>>, Failure> {
    let files = &flags.video;
    if publishers == 0 {
        return match files.first() {
            Some(_) => Err(Failure::config(
                "--video is given but nobody publishes video: add --video-publishers 1",
            )),
            None => Ok(Vec::new()),
        };
    }
    if files.is_empty() && flags.video_frame_rate.is_some() {
        return Err(Failure::config(
            "--video-frame-rate is given without an H.264 file: add --video FILE.h264",
        ));
    }
    if files.len() > LAYERS_MAX {
        return Err(Failure::config(format!(
            "--video is given {} times: a track has at most {LAYERS_MAX} simulcast layers",
            files.len()
        )));
    }
    if flags.no_simulcast && files.len() > 1 {
        return Err(Failure::config(format!(
            "--no-simulcast publishes one layer, but --video is given {} times: leave one out",
            files.len()
        )));
    }
    let mut layers = if files.is_empty() {
        let clips = builtin::video(flags.video_codec.unwrap_or(Codec::Vp8));
        clips.map_err(Failure::other)?.into_iter().map(Arc::new).collect()
    } else {
        video_files(flags, notes)?
    };
    if flags.no_simulcast {
        layers.drain(..layers.len() - 1);
    }
    for pair in layers.windows(2) {
        let [low, high] = pair else { continue };
        let pixels = |clip: &MediaClip| u32::from(clip.width) * u32::from(clip.height);
        if pixels(low) >= pixels(high) {
            return Err(Failure::config(format!(
                "--video: '{}' ({}x{}) comes before '{}' ({}x{}): give the lowest layer first, \
                 each larger than the one before",
                one_line(&low.name),
                low.width,
                low.height,
                one_line(&high.name),
                high.width,
                high.height
            )));
        }
    }
    Ok(layers)
}

fn audio_clip(flags: &RunFlags, publishers: u32) -> Result<Option<Arc<MediaClip>>, Failure> {
    match &flags.audio {
        Some(_) if publishers == 0 => Err(Failure::config(
            "--audio is given but nobody publishes audio: add --audio-publishers 1",
        )),
        _ if publishers == 0 => Ok(None),
        None => builtin::audio().map(Arc::new).map(Some).map_err(Failure::other),
        Some(file) => {
            let file = std::slice::from_ref(file);
            Ok(open_clips(file, Codec::Opus, "--audio", "an Ogg file with Opus")?.pop())
        }
    }
}

/// Opens the files of `--video`: all of one codec, that of `--video-codec` if it is given.
fn video_files(flags: &RunFlags, notes: &mut Vec<String>) -> Result<Vec<Arc<MediaClip>>, Failure> {
    let options = ClipOptions { frame_rate: flags.video_frame_rate };
    let mut layers: Vec<Arc<MediaClip>> = Vec::new();
    for file in &flags.video {
        let opened = MediaClip::open_with(file, options)
            .map_err(|error| Failure::config(format!("--video: {error}")))?;
        let clip = opened.clip;
        let first = layers.first().map(|first| first.codec);
        let wanted = flags.video_codec.or(first).unwrap_or(clip.codec);
        let name = one_line(&clip.name);
        if !clip.codec.is_video() || clip.codec != wanted {
            let takes = match wanted.is_video() {
                true => wanted.to_string(),
                false => "video".to_owned(),
            };
            return Err(Failure::config(format!(
                "--video: {name}: byte 0: it holds {}, but {takes} is published; give files of \
                 one codec, and --video-codec to match",
                clip.codec
            )));
        }
        if flags.video_frame_rate.is_some() && clip.codec != Codec::H264 {
            return Err(Failure::config(format!(
                "--video-frame-rate: {name} has timestamps of its own; leave the flag out"
            )));
        }
        if opened.frame_rate_assumed {
            notes.push(format!(
                "--video: {name} does not say how fast it plays; it is taken for {} frames/s \
                 (say otherwise with --video-frame-rate)",
                clip.frame_rate
            ));
        }
        layers.push(Arc::new(clip));
    }
    Ok(layers)
}

fn open_clips(
    files: &[PathBuf],
    codec: Codec,
    flag: &str,
    wanted: &str,
) -> Result<Vec<Arc<MediaClip>>, Failure> {
    let open = |file: &PathBuf| {
        let clip =
            MediaClip::open(file).map_err(|error| Failure::config(format!("{flag}: {error}")))?;
        if clip.codec != codec {
            return Err(Failure::config(format!(
                "{flag}: {}: byte 0: it holds {}, but {flag} takes {wanted}",
                file.display(),
                clip.codec
            )));
        }
        Ok(Arc::new(clip))
    };
    files.iter().map(open).collect()
}

fn record_plan(flags: &RunFlags, shape: &Shape) -> Result<Option<RecordPlan>, Failure> {
    let subscribers = u32::try_from(shape.subscribers()).unwrap_or(u32::MAX);
    let cohort = shape.cohorts.iter().find(|cohort| cohort.record);
    let Some(dir) = &flags.record else {
        if let Some(cohort) = cohort {
            return Err(Failure::config(format!(
                "cohort '{}' records but has no folder to write to: add --record DIR",
                cohort.name
            )));
        }
        return match flags.record_subscribers {
            Some(count) => Err(Failure::config(format!(
                "--record-subscribers {count} has no folder to write to: add --record DIR"
            ))),
            None => Ok(None),
        };
    };
    // Who names a cohort that records means that one.
    let wanted = flags.record_subscribers.unwrap_or(u32::from(cohort.is_none()));
    if (wanted == 0 && cohort.is_none()) || wanted > subscribers {
        return Err(Failure::config(format!(
            "--record-subscribers {wanted}: it must lie between 1 and the {subscribers} \
             subscribers of this run"
        )));
    }
    fs::create_dir_all(dir).map_err(|error| {
        Failure::config(format!("--record {}: it can't be made: {error}", dir.display()))
    })?;
    files::check_folder(dir).map_err(|error| {
        Failure::config(format!("--record {}: it can't be written to: {error}", dir.display()))
    })?;
    Ok(Some(RecordPlan { dir: dir.clone(), subscribers: wanted }))
}

fn capture_plan(flags: &RunFlags) -> Result<Option<CapturePlan>, Failure> {
    let Some(dir) = &flags.capture else {
        return match flags.capture_headers {
            true => Err(Failure::config(
                "--capture-headers has no folder to write to: add --capture DIR",
            )),
            false => Ok(None),
        };
    };
    fs::create_dir_all(dir).map_err(|error| {
        Failure::config(format!("--capture {}: it can't be made: {error}", dir.display()))
    })?;
    files::check_folder(dir).map_err(|error| {
        Failure::config(format!("--capture {}: it can't be written to: {error}", dir.display()))
    })?;
    Ok(Some(CapturePlan {
        dir: dir.clone(),
        span: Duration::from_secs(flags.capture_seconds),
        worst: flags.capture_peers as usize,
        headers: flags.capture_headers,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::{Command, Parsed, parse};

    fn plan(args: &[&str]) -> Result<Plan, Failure> {
        let words = ["stampede", "run"].iter().chain(args).map(Into::into);
        match parse(words).unwrap() {
            Parsed::Command(Command::Run(mut flags)) => {
                // A developer's own LIVEKIT_* must not leak into these tests.
                if !args.contains(&"--url") {
                    flags.url = None;
                }
                if !args.iter().any(|arg| arg.starts_with("--api-key")) {
                    flags.api_key = None;
                }
                if !args.iter().any(|arg| arg.starts_with("--api-secret")) {
                    flags.api_secret = None;
                }
                Plan::new(*flags)
            }
            _ => panic!("not a run"),
        }
    }

    const SERVER: [&str; 6] =
        ["--url", "ws://127.0.0.1:7880", "--api-key", "key", "--api-secret", "hunter2"];

    fn server_plan(args: &[&str]) -> Result<Plan, Failure> {
        plan(&[&SERVER[..], args].concat())
    }

    #[test]
    fn without_a_url_everything_has_a_default() {
        let plan = plan(&[]).unwrap();
        assert!(matches!(plan.target, Target::Embedded(_)));
        assert_eq!((plan.video_publishers, plan.audio_publishers, plan.subscribers), (1, 1, 200));
        assert_eq!(plan.video_layers.len(), 3);
        assert_eq!(plan.audio_clip.unwrap().codec, Codec::Opus);
        assert_eq!(plan.duration, Duration::from_secs(20));
    }

    #[test]
    fn at_a_server_only_what_is_asked_for_joins() {
        let plan = server_plan(&["--subscribers", "3", "--rooms", "2"]).unwrap();
        assert_eq!((plan.shape.publishers(), plan.participants()), (0, 6));
        assert!(plan.video_layers.is_empty() && plan.audio_clip.is_none());
        assert!(server_plan(&[]).unwrap_err().to_string().contains("nobody would join"));
    }

    #[test]
    fn one_layer_without_simulcast() {
        let plan = plan(&["--no-simulcast"]).unwrap();
        assert_eq!(plan.video_layers.len(), 1);
        assert_eq!(plan.video_layers[0].height, 720);
    }

    #[test]
    fn bad_urls_are_refused_without_their_secrets() {
        for (text, why) in [
            ("host:7880", "ws://"),
            ("", "URL"),
            ("ftp://host", "ftp"),
            ("ws://", "host"),
            ("ws://host:99999", "port"),
            ("ws://u:hunter2@host", "user name"),
            ("ws://u:hunter2@host:99999", "port"),
            ("ws://host?access_token=hunter2", "query"),
        ] {
            let args = ["--url", text, "--subscribers", "1", "--api-key=k", "--api-secret=s"];
            let error = plan(&args).unwrap_err().to_string();
            assert!(error.contains(why) && !error.contains("hunter2"), "{text}: {error}");
            assert!(error.starts_with("--url"), "{error}");
        }
    }

    #[test]
    fn livekit_cloud_is_not_load_tested() {
        let url = ServerUrl::parse("wss://x.livekit.cloud").unwrap();
        assert!(check_cloud(&url, 50).is_ok());
        let error = check_cloud(&url, 51).unwrap_err().to_string();
        assert!(error.contains("acceptable use policy"), "{error}");
        let own = ServerUrl::parse("wss://notlivekit.cloud").unwrap();
        assert!(check_cloud(&own, 5_000).is_ok());
    }

    #[test]
    fn contradictions_are_refused() {
        let missing = "/nonexistent/x";
        let all = [
            (plan(&["--rooms", "0"]), "--rooms 0"),
            (plan(&["--workers", "0"]), "--workers 0"),
            (plan(&["--room", ""]), "--room"),
            (plan(&["--embedded-flag=--refuse-joins=7"]), "% sign"),
            (plan(&["--embedded-flag=--help"]), "--embedded-flag"),
            (plan(&["--embedded-flag=--api-secret=x"]), "sets it itself"),
            (plan(&["--subscribers", "4000000", "--rooms", "4000"]), "more than one run"),
            (plan(&["--record-subscribers", "1"]), "--record DIR"),
            (plan(&["--capture-headers"]), "--capture DIR"),
            (plan(&["--video", missing]), missing),
            (plan(&["--audio", missing]), missing),
            (plan(&["--video-publishers", "0", "--video", missing]), "nobody publishes video"),
            (plan(&["--audio-publishers", "0", "--audio", missing]), "nobody publishes audio"),
            (plan(&["--no-simulcast", "--video", "a", "--video", "b"]), "--no-simulcast"),
            (plan(&["--video=a", "--video=b", "--video=c", "--video=d"]), "4 times"),
            (plan(&["--out", "json=/nonexistent/x"]), "can't be written"),
            (server_plan(&["--subscribers", "1", "--embedded-drop", "1%"]), "--embedded-drop"),
            (
                server_plan(&["--subscribers", "1", "--embedded-impair", "loss=1%"]),
                "--embedded-impair",
            ),
            (plan(&["--url", "ws://h", "--subscribers", "1"]), "LIVEKIT_API_KEY"),
            (
                plan(&["--url", "ws://h", "--api-key", "k", "--subscribers", "1"]),
                "LIVEKIT_API_SECRET",
            ),
        ];
        for (result, why) in all {
            let error = result.expect_err(why);
            assert!(error.to_string().contains(why), "{error}");
            assert_eq!(error.exit, crate::exit::Exit::BadConfiguration);
        }
    }

    #[test]
    fn thresholds_are_on_cohorts_that_there_are() {
        let with = |key: &str| {
            let test = format!("{key}<1%");
            plan(&["--impair=cohort=50%,loss=1%", "--threshold", &test])
        };
        assert!(with("cohorts.impair-1.video.loss_rate").is_ok());
        assert!(with("cohorts.rest.audio.loss_rate").is_ok());
        let error = with("cohorts.impair-2.video.loss_rate").unwrap_err();
        assert_eq!(error.exit, crate::exit::Exit::BadConfiguration);
        let error = error.to_string();
        assert!(error.contains("no 'impair-2' among 'rest', 'impair-1'"), "{error}");
        let none = plan(&["--threshold=impairment.cohorts.far.dropped<9"]).unwrap_err();
        assert!(none.to_string().contains("nothing is impaired"), "{none}");
        let none = plan(&["--threshold=cohorts.rest.video.loss_rate<1%"]).unwrap_err();
        assert!(none.to_string().contains("no cohorts"), "{none}");
    }

    #[test]
    fn recordings_need_a_folder_and_enough_subscribers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new").display().to_string();
        let record = plan(&["--record", &path]).unwrap().record.unwrap();
        assert_eq!(record.subscribers, 1);
        assert!(record.dir.is_dir() && fs::read_dir(&record.dir).unwrap().next().is_none());
        let many = ["--record", &path, "--subscribers", "2", "--record-subscribers", "3"];
        assert!(plan(&many).unwrap_err().to_string().contains("between 1 and the 2"));
        let file = dir.path().join("file");
        fs::write(&file, "x").unwrap();
        let file = file.display().to_string();
        assert!(plan(&["--record", &file]).unwrap_err().to_string().contains("can't be made"));
    }

    #[test]
    fn the_secret_is_not_in_the_plan_s_debug_text() {
        let plan = server_plan(&["--subscribers", "1"]).unwrap();
        assert!(!format!("{plan:?}").contains("hunter2"));
    }
}
