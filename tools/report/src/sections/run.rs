//! What was run, with which options, on which machine.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stampede_counters::PacketCounters;

use super::verdict::{Fault, Verdict};

/// What was run.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct RunSection {
    /// Part of every participant's identity.
    pub id: String,
    /// RFC 3339, UTC.
    pub started_at: String,
    /// Whole run, from the first join to the last leave.
    pub duration_s: f64,
    /// Measured window: after the ramp, until everybody was told to leave. `null` if the run was
    /// interrupted in the ramp; the figures are then of the ramp.
    pub measured_s: Option<f64>,
    /// True if a signal ended it, or cut its end short; `verdict.result` is then `interrupted`.
    pub interrupted: bool,
    /// Where it joined.
    pub target: TargetSection,
    /// The options in force, defaults included, secrets never; `null` in a merged report, whose
    /// `hosts` have them.
    pub options: Option<Options>,
    /// Seed of everything random; `null` in a merged report.
    pub seed: Option<u64>,
    /// This machine; `null` in a merged report.
    pub machine: Option<Machine>,
    /// Version of stampede.
    pub stampede_version: String,
    /// The hosts of a merged report, one row each; `null` in the report of one host.
    #[serde(default)]
    pub hosts: Option<Vec<HostSection>>,
    /// Stages that have ended, in a merged report on all hosts; `null` without `--stage`, and where
    /// hosts had different ones.
    #[serde(default)]
    pub stages: Option<Vec<StageRow>>,
}

/// One stage; in the report of a host of several, its part of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StageRow {
    /// When it began, since the first stage began.
    pub t_s: f64,
    /// How long it took.
    pub duration_s: f64,
    /// Subscribers asked for at its end, over all rooms.
    pub subscribers: u64,
    /// Of them connected at its end.
    pub subscribers_connected: u64,
    /// Subscribers started in it.
    pub joined: u64,
    /// Subscribers told to leave in it.
    pub left: u64,
    /// Packets of video and audio that should have arrived in it.
    pub packets_expected: Option<u64>,
    /// Of them not there when passed over.
    pub packets_missing: Option<u64>,
    /// Given up in it.
    pub packets_unrecovered: Option<u64>,
    /// `packets_unrecovered / packets_expected`.
    pub loss_rate: Option<f64>,
    /// `packets_missing / packets_expected`.
    pub missing_rate: Option<f64>,
    /// Payload bits a second, all streams together.
    pub bitrate_bps: Option<f64>,
}

impl StageRow {
    /// With these packets counted in it.
    #[must_use]
    pub fn with_packets(self, packets: Option<PacketCounters>) -> Self {
        let bits = |packets: PacketCounters| packets.bytes as f64 * 8.0;
        Self {
            packets_expected: packets.map(|packets| packets.expected),
            packets_missing: packets.map(|packets| packets.missing),
            packets_unrecovered: packets.map(|packets| packets.unrecovered),
            loss_rate: packets.and_then(|packets| packets.loss_rate()),
            missing_rate: packets.and_then(|packets| packets.missing_rate()),
            bitrate_bps: packets
                .filter(|_| self.duration_s > 0.0)
                .map(|packets| (bits(packets) / self.duration_s).round()),
            ..self
        }
    }

    /// The stages of several hosts that played the same ones, as far as all of them came; `None`
    /// if one had none, or others. Their bitrates add up only where they played them `together`.
    pub fn merged<'a>(
        hosts: impl Iterator<Item = Option<&'a [Self]>>,
        together: bool,
    ) -> Option<Vec<Self>> {
        let hosts: Vec<&[Self]> = hosts.collect::<Option<_>>()?;
        let common = hosts.iter().map(|rows| rows.len()).min()?;
        let row = |number| Self::sum(hosts.iter().filter_map(|rows| rows.get(number)), together);
        (0..common).map(row).collect()
    }

    fn sum<'a>(mut rows: impl Iterator<Item = &'a Self>, together: bool) -> Option<Self> {
        let first = rows.next()?.clone();
        rows.try_fold(first, |sum, row| {
            let at = |row: &Self| (row.t_s, row.duration_s);
            let known = |sum: Option<u64>, own: Option<u64>| {
                sum.zip(own).map(|(sum, own)| sum.saturating_add(own))
            };
            let packets_expected = known(sum.packets_expected, row.packets_expected);
            let packets_missing = known(sum.packets_missing, row.packets_missing);
            let packets_unrecovered = known(sum.packets_unrecovered, row.packets_unrecovered);
            let packets = packets_expected.map(|expected| PacketCounters {
                expected,
                missing: packets_missing.unwrap_or(0),
                unrecovered: packets_unrecovered.unwrap_or(0),
                ..PacketCounters::default()
            });
            let bitrates = sum.bitrate_bps.zip(row.bitrate_bps).filter(|_| together);
            let added = |sum: u64, own: u64| sum.saturating_add(own);
            (at(&sum) == at(row)).then(|| {
                let sum = Self {
                    subscribers: added(sum.subscribers, row.subscribers),
                    subscribers_connected: added(
                        sum.subscribers_connected,
                        row.subscribers_connected,
                    ),
                    joined: added(sum.joined, row.joined),
                    left: added(sum.left, row.left),
                    ..sum
                };
                let sum = sum.with_packets(packets);
                Self {
                    packets_missing,
                    packets_unrecovered,
                    loss_rate: sum.loss_rate.filter(|_| packets_unrecovered.is_some()),
                    missing_rate: sum.missing_rate.filter(|_| packets_missing.is_some()),
                    bitrate_bps: bitrates.map(|(sum, own)| sum + own),
                    ..sum
                }
            })
        })
    }
}

/// A capacity search.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct FindSection {
    /// What was searched: `subscribers` (per room).
    pub what: String,
    /// The promise.
    pub until: String,
    /// How long each step held.
    pub hold_s: f64,
    /// Steps in the order in which they were made.
    pub steps: Vec<FindStep>,
    /// The highest number that kept the promise; `null` if none did.
    pub highest_ok: Option<u64>,
    /// The lowest number that did not; `null` if all did.
    pub first_broken: Option<u64>,
    /// What broke it there; `null` if nothing did.
    pub limit: Option<Fault>,
    /// False if the search was ended by a signal.
    pub complete: bool,
}

/// One step of a capacity search.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct FindStep {
    /// Subscribers per room.
    pub subscribers: u64,
    /// Everybody joined and the promise held.
    pub ok: bool,
    /// Participants that joined.
    pub joined: u64,
    /// The figures that the promise is about.
    pub figures: BTreeMap<String, Option<f64>>,
    /// Busiest worker.
    pub busy_ratio_max: f64,
    /// What broke it, as far as known.
    pub fault: Fault,
    /// Why, most important first.
    pub reasons: Vec<String>,
}

/// One host of a merged report.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct HostSection {
    /// Its name in the reasons.
    pub host: String,
    /// Its run.
    pub id: String,
    /// RFC 3339, UTC.
    pub started_at: String,
    /// Its whole run.
    pub duration_s: f64,
    /// Its measured window.
    pub measured_s: Option<f64>,
    /// Its options.
    pub options: Option<Options>,
    /// Its seed.
    pub seed: Option<u64>,
    /// The machine.
    pub machine: Option<Machine>,
    /// Its own verdict.
    pub verdict: Verdict,
    /// Its version of stampede; `null` in reports that were merged by versions without it.
    #[serde(default)]
    pub stampede_version: Option<String>,
    /// How its clock was set against the run's; `null` where nobody has measured it, as where stored
    /// reports were merged.
    #[serde(default)]
    pub clock: Option<ClockSection>,
    /// Why it was lost while the run went on, its figures being those of its last snapshot; `null` if it
    /// was not.
    #[serde(default)]
    pub lost: Option<String>,
}

/// A host's clock. What it stamped is by the coordinator's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ClockSection {
    /// The coordinator's clock less its own, as it was measured before the start and is corrected for.
    pub offset_ms: f64,
    /// The offset was off by no more at the end of the run. Latency from other hosts is not known where
    /// it is above 5 ms.
    pub bound_ms: f64,
}

/// Where it joined.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TargetSection {
    /// Signalling URL; `null` if the run ended before it was known.
    pub url: Option<String>,
    /// True for the embedded SFU.
    pub embedded: bool,
    /// As the server says in its join response.
    pub server_version: Option<String>,
}

/// What subscribers told of congestion in versions without `--feedback`.
fn no_feedback() -> String {
    "none".to_owned()
}

/// How subscribers arrived in versions without `--arrival`.
fn evenly() -> String {
    "constant".to_owned()
}

/// The options in force.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Options {
    /// Room names' base.
    pub room: String,
    /// Number of rooms.
    pub rooms: u32,
    /// Per room.
    pub video_publishers: u32,
    /// Per room.
    pub audio_publishers: u32,
    /// `--screen-share-publishers`, per room; 0 in reports of versions without it.
    #[serde(default)]
    pub screen_share_publishers: u32,
    /// `--screen-share-audio`.
    #[serde(default)]
    pub screen_share_audio: bool,
    /// Per room.
    pub subscribers: u32,
    /// Participants that send and receive, per room; 0 in reports of versions without them.
    #[serde(default)]
    pub participants: u32,
    /// `--participant-tracks`; null without such participants.
    #[serde(default)]
    pub participant_tracks: Option<String>,
    /// `--data-publishers`, per room; 0 in reports of versions without them.
    pub data_publishers: u32,
    /// `--data-rate`; null without data, or where only cohorts send any.
    pub data_rate: Option<f64>,
    /// `--data-size`; null without data, or where only cohorts send any.
    pub data_size_bytes: Option<usize>,
    /// `--data-kind`; null without data, or where only cohorts send any.
    pub data_kind: Option<String>,
    /// `--data-track-subscribe`, or what it is where that is not said; null without data.
    #[serde(default)]
    pub data_track_subscribe: Option<String>,
    /// `--rpc-callers`, per room; 0 in reports of versions without them.
    pub rpc_callers: u32,
    /// `--rpc-rate`; null without calls, or where only cohorts make any.
    pub rpc_rate: Option<f64>,
    /// `--rpc-size`; null without calls, or where only cohorts make any.
    pub rpc_size_bytes: Option<usize>,
    /// `--rpc-timeout`; null without calls.
    pub rpc_timeout_s: Option<f64>,
    /// `--rpc-method`; null without calls.
    pub rpc_method: Option<String>,
    /// `--rpc-to`; null without it.
    pub rpc_to: Option<String>,
    /// `--duration`.
    pub duration_s: f64,
    /// Joins per second.
    pub num_per_second: f64,
    /// `--retry`.
    pub retry: u32,
    /// `--retry-sleep`.
    pub retry_sleep_s: f64,
    /// `--reconnect`; empty in reports of versions without it.
    pub reconnect: String,
    /// `--signal`; empty in reports of versions without it, which spoke v0.
    #[serde(default)]
    pub signal: String,
    /// `--feedback`; `none` in reports of versions without it, which gave none.
    #[serde(default = "no_feedback")]
    pub feedback: String,
    /// Publishers obeyed the server's feedback (`--adapt`).
    #[serde(default)]
    pub adapt: bool,
    /// `--transport`; empty in reports of versions without it, which knew UDP alone.
    #[serde(default)]
    pub transport: String,
    /// `--arrival`.
    #[serde(default = "evenly")]
    pub arrival: String,
    /// `--stay`; `null` where everybody stays to the end.
    pub stay_s: Option<f64>,
    /// `--rejoin`, a share; 0 where nobody comes back.
    pub rejoin: f64,
    /// `--away`; `null` where nobody comes back.
    pub away_s: Option<f64>,
    /// `--room-sizes`; `subscribers` is then their mean, rounded up.
    pub room_sizes: Option<String>,
    /// `--fault`, each as it is in `faults`.
    pub fault: Vec<String>,
    /// `--video-resolution`.
    pub video_resolution: String,
    /// Names of the published video clips, lowest layer first.
    pub video: Vec<String>,
    /// Names of the clips that are shared screens, lowest layer first; empty where nobody shares one.
    #[serde(default)]
    pub screen_share: Vec<String>,
    /// `--video-codec`; `null` where it was not given.
    #[serde(default)]
    pub video_codec: Option<String>,
    /// `--backup-codec`; `null` without one, and in reports of versions without it.
    #[serde(default)]
    pub backup_codec: Option<String>,
    /// `--subscribe-codecs`; `null` where it was not given.
    #[serde(default)]
    pub subscribe_codecs: Option<String>,
    /// Name of the published audio clip.
    pub audio: Option<String>,
    /// Whether publishers' audio was to be redundant (RED), where the server agrees; `null` in reports
    /// of versions without it.
    #[serde(default)]
    pub audio_red: Option<bool>,
    /// Whether publishers were to leave out silence (DTX), where the server agrees; `null` in reports of
    /// versions without it.
    #[serde(default)]
    pub audio_dtx: Option<bool>,
    /// Recording folder.
    pub record: Option<String>,
    /// Subscribers that record.
    pub record_subscribers: u32,
    /// `--dynacast`.
    #[serde(default)]
    pub dynacast: bool,
    /// `--stage`, each as `DUR:SUBS` in seconds.
    #[serde(default)]
    pub stage: Vec<String>,
    /// `--layout`.
    #[serde(default)]
    pub layout: Option<String>,
    /// `--subscribe-mode`.
    #[serde(default)]
    pub subscribe_mode: String,
    /// `--hidden`.
    #[serde(default)]
    pub hidden: bool,
    /// `--simulate-speakers`.
    #[serde(default)]
    pub simulate_speakers: bool,
    /// Names of the cohorts.
    #[serde(default)]
    pub cohorts: Vec<String>,
    /// `--no-media`.
    #[serde(default)]
    pub no_media: bool,
    /// `--grant`.
    #[serde(default)]
    pub grant: Vec<String>,
    /// Bytes of `--participant-metadata` and `--participant-attribute`.
    #[serde(default)]
    pub participant_metadata_bytes: usize,
    /// True with `--token-file`.
    #[serde(default)]
    pub token_file: bool,
    /// `--metadata-updates-per-second`; `null` without it.
    #[serde(default)]
    pub metadata_updates_per_second: Option<f64>,
    /// `--playout-deadline`.
    pub playout_deadline_ms: f64,
    /// `--interruption-min`.
    #[serde(default)]
    pub interruption_min_s: f64,
    /// `--join-grace`.
    #[serde(default)]
    pub join_grace_s: f64,
    /// `--impair`.
    pub impair: Vec<String>,
    /// Media workers.
    pub workers: usize,
    /// Their cores.
    pub cores: Vec<usize>,
    /// `--backend`.
    pub backend: String,
    /// `--receive-buffer`; `null` in reports of versions without it.
    pub receive_buffer_bytes: Option<usize>,
    /// `--packet-ring`, or what it is without; `null` where no such ring was used, and in reports
    /// of versions without it.
    pub packet_ring_bytes: Option<usize>,
    /// How the embedded SFU was started; `null` at a real server.
    pub embedded: Option<EmbeddedOptions>,
}

/// How the embedded SFU was started.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct EmbeddedOptions {
    /// Its cores.
    pub cores: Vec<usize>,
    /// Share of packets it drops.
    pub drop: f64,
    /// Mean burst of drops in packets.
    pub drop_burst: u32,
    /// How long it holds packets back.
    pub delay_ms: f64,
    /// `--embedded-impair`.
    pub impair: Vec<String>,
    /// `--embedded-flag`.
    pub flags: Vec<String>,
}

/// This machine.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Machine {
    /// Its name.
    pub hostname: Option<String>,
    /// Cores this process may use.
    pub cpus: usize,
    /// CPU model as the kernel names it.
    pub cpu_model: Option<String>,
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Kernel name and release.
    pub kernel: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(t_s: f64, subscribers: u64, expected: Option<u64>) -> StageRow {
        let row = StageRow {
            t_s,
            duration_s: 2.0,
            subscribers,
            subscribers_connected: subscribers,
            joined: 3,
            left: 1,
            ..StageRow::default()
        };
        row.with_packets(expected.map(|expected| PacketCounters {
            expected,
            unrecovered: 10,
            bytes: 1_000,
            ..PacketCounters::default()
        }))
    }

    #[test]
    fn stages_of_hosts_add_up_as_far_as_all_came() {
        let one = [stage(0.0, 4, Some(100)), stage(2.0, 5, Some(100))];
        let two = [stage(0.0, 3, Some(300)), stage(2.0, 2, None), stage(4.0, 9, None)];
        let rows = StageRow::merged([Some(&one[..]), Some(&two)].into_iter(), true).unwrap();
        assert_eq!(rows.len(), 2);
        let StageRow { subscribers, subscribers_connected, joined, left, .. } = rows[0];
        assert_eq!((subscribers, subscribers_connected, joined, left), (7, 7, 6, 2));
        assert_eq!((rows[0].packets_expected, rows[0].loss_rate), (Some(400), Some(0.05)));
        assert_eq!(rows[0].bitrate_bps, Some(8_000.0));
        // One does not know.
        assert_eq!((rows[1].subscribers, rows[1].packets_expected), (7, None));
        assert_eq!((rows[1].loss_rate, rows[1].bitrate_bps), (None, None));
        let others = [stage(1.0, 4, None)];
        assert_eq!(StageRow::merged([Some(&one[..]), Some(&others)].into_iter(), true), None);
        assert_eq!(StageRow::merged([Some(&one[..]), None].into_iter(), true), None);
    }

    #[test]
    fn what_a_host_does_not_say_of_a_stage_is_unknown() {
        let one = [stage(0.0, 4, Some(100))];
        let two = [StageRow { packets_unrecovered: None, ..one[0].clone() }];
        let hosts = || [Some(&one[..]), Some(&two)].into_iter();
        let rows = StageRow::merged(hosts(), true).unwrap();
        assert_eq!((rows[0].packets_expected, rows[0].packets_unrecovered), (Some(200), None));
        assert_eq!((rows[0].loss_rate, rows[0].missing_rate), (None, Some(0.0)));
        assert_eq!(rows[0].bitrate_bps, Some(8_000.0));
        let apart = StageRow::merged(hosts(), false).unwrap();
        assert_eq!((apart[0].bitrate_bps, apart[0].subscribers), (None, 8));
    }
}
