//! What the verdict is made of: plain facts about a run.

use stampede_core::watch::Cause;
use stampede_counters::{DataCounters, ImpairCounters, RecoveryGroups, RpcCounters};

use crate::errors::{ErrorClass, ErrorFact};
use crate::joins::LostJoins;
use crate::layers::LayersSection;
use crate::senders::SenderFacts;
use crate::types::Fault;
use crate::watch::Missed;

/// One worker over the measured window.
#[derive(Debug, Clone, Default)]
pub struct WorkerFacts {
    /// CPU over wall time.
    pub busy_ratio: f64,
    /// 99th percentile of its timers' lateness.
    pub lateness_ms_p99: f64,
    /// 99th percentile of the age of its oldest unread datagram.
    pub batch_age_ms_p99: f64,
    /// The longest of both.
    pub stall_ms_max: f64,
}

/// What the embedded SFU's ledger says about the measured window.
#[derive(Debug, Clone, Copy, Default)]
pub struct LedgerFacts {
    /// First transmissions it handed to its socket.
    pub packets_sent: u64,
    /// First transmissions it dropped by injection.
    pub dropped: u64,
    /// First transmissions it held back so that others overtook them.
    pub reordered: u64,
    /// Retransmissions it dropped by injection.
    pub retransmits_dropped: u64,
    /// Publishers' packets that never reached it.
    pub upstream_lost: u64,
    /// Packets its own kernel or queues lost.
    pub lost_inside: u64,
    /// Of them those that found a receive buffer of its own full: most of them publishers'.
    pub receive_drops: u64,
    /// Clients that fell silent, as far as it could tell: their media, or their signalling.
    pub fell_silent: u64,
    /// Signalling connections that it closed because they were read too slowly.
    pub read_too_slowly: u64,
    /// How long one of its workers had no time left, of the one that had least; in seconds.
    pub full_s: f64,
}

/// Subscriptions to our own publishers' tracks.
#[derive(Debug, Clone, Copy, Default)]
pub struct TracksFacts {
    /// There should have been.
    pub expected: u64,
    /// Of them nothing arrived in the measured window.
    pub missing: u64,
    /// There could be none: whoever receives is alone with what it sends itself.
    pub none_due: bool,
    /// Nothing was ever sent on, says the embedded SFU's ledger.
    pub unsent: Option<u64>,
    /// Keyframes we asked for.
    pub plis: u64,
}

/// What was done to participants on purpose (`--fault`).
#[derive(Debug, Clone, Copy, Default)]
pub struct OnPurposeFacts {
    /// Times that something was done to one.
    pub hit: u64,
    /// Of them those that may lose media on their way.
    pub hit_media: u64,
    /// Datagrams of our publishers that did not leave; 0 with more than one room.
    pub unsent: u64,
    /// Of them those after which it had to come back, and did.
    pub recovered: u64,
}

/// What the embedded SFU's ledger says of data messages in the measured window.
#[derive(Debug, Clone, Copy, Default)]
pub struct DataLedgerFacts {
    /// Dropped on purpose.
    pub withheld: u64,
    /// Not sent: no channel, or a full one.
    pub unsent: u64,
    /// Dropped because too many waited.
    pub dropped: u64,
}

/// Data messages, if any were to be sent.
#[derive(Debug, Clone, Copy, Default)]
pub struct DataFacts {
    /// What was counted.
    pub counted: DataCounters,
    /// Who was to get them and joined.
    pub receivers: u64,
    /// The embedded SFU's account of them.
    pub ledger: Option<DataLedgerFacts>,
}

/// Calls between participants, if any were to be made.
#[derive(Debug, Clone, Copy, Default)]
pub struct RpcFacts {
    /// What was counted.
    pub counted: RpcCounters,
    /// The embedded SFU's account of all messages.
    pub ledger: Option<DataLedgerFacts>,
}

/// A run that could not go on.
#[derive(Debug, Clone)]
pub struct Early {
    /// Whose fault, as far as known.
    pub fault: Fault,
    /// In plain words.
    pub why: String,
}

/// What is known about a run.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Participants started before the run ended.
    pub started: u64,
    /// Participants connected at least once.
    pub joined: u64,
    /// Participants that gave up before they ever connected.
    pub failed: u64,
    /// Connected ones that were dropped.
    pub dropped: u64,
    /// All of it in words.
    pub balance: String,
    /// Joins that failed, or never ended.
    pub lost_joins: LostJoins,
    /// Participants that were on their way back at the end.
    pub left_absent: u64,
    /// How participants came back, if they did.
    pub recoveries: RecoveryGroups,
    /// What was done to participants on purpose.
    pub on_purpose: OnPurposeFacts,
    /// Why the server is taken to have been gone at the end.
    pub server_gone: Option<Early>,
    /// Subscribers connected at least once.
    pub subscribers_joined: u64,
    /// Nobody was to send media, or to receive any.
    pub no_media: bool,
    /// Publishers connected at least once.
    pub publishers_joined: u64,
    /// Errors by kind, commonest first; those that were only said come last.
    pub errors: Vec<ErrorFact>,
    /// True if the run was ended by a signal.
    pub interrupted: bool,
    /// Why the run ended before its time, if not by a signal.
    pub ended_early: Option<Early>,
    /// Media packets, video and audio together.
    pub expected: u64,
    /// Arrived.
    pub received: u64,
    /// First-transmission loss.
    pub missing: u64,
    /// Of the missing packets, those that came after a later one on the primary SSRC: never lost.
    pub reordered: u64,
    /// Of those lost for good, those that came after the deadline.
    pub late: u64,
    /// In time by repair, redundancy (RED) included.
    pub repaired: u64,
    /// Lost for good.
    pub unrecovered: u64,
    /// What `--impair` and outages by `--fault` did.
    pub injected: Option<ImpairCounters>,
    /// Faults that fired and hit nobody, in words.
    pub faults_without_effect: Vec<String>,
    /// `--impair`, or a cohort's, was to do something.
    pub impaired: bool,
    /// Who could not watch, and why.
    pub watch: WatchFacts,
    /// Which layers they got.
    pub layers: LayersSection,
    /// [`LOWER_RATIO_MAX`](crate::bounds::LOWER_RATIO_MAX) applies: no threshold on layers takes its
    /// place.
    pub layers_bounded: bool,
    /// How late the latest packet of our publishers left.
    pub publish_late_ms_max: f64,
    /// The server was the embedded SFU.
    pub embedded: bool,
    /// The server was reached over this machine's own loopback.
    pub local: bool,
    /// Tracks.
    pub tracks: TracksFacts,
    /// Longest wait for a join response from the open TCP connection: livekit-server has it ready
    /// before it answers the websocket's upgrade.
    pub join_response_wait_ms_max: f64,
    /// Datagrams that were broken or failed authentication.
    pub rejected: u64,
    /// Packets lost for good of the kinds of media to which
    /// [`LOSS_RATE_MAX`](crate::bounds::LOSS_RATE_MAX) applies: no threshold on loss takes its place.
    pub bounded_unrecovered: u64,
    /// Packets expected of these kinds.
    pub bounded_expected: u64,
    /// Media packets published.
    pub published: u64,
    /// Packets the server's receiver reports call lost upstream.
    pub upstream_lost: u64,
    /// Published packets that its receiver reports are about, lost or not.
    pub upstream_reported: u64,
    /// Published packets that the server had to ask for again; 0 with more than one room, where nobody
    /// knows here whose subscribers they were for.
    pub sent_again: u64,
    /// Datagrams in.
    pub datagrams_in: u64,
    /// Datagrams out.
    pub datagrams_out: u64,
    /// Lost at our receive buffers, by estimate where they come in runs.
    pub kernel_drops: u64,
    /// They are an estimate.
    pub drops_estimated: bool,
    /// Send errors and full send queues.
    pub send_losses: u64,
    /// Workers.
    pub workers: Vec<WorkerFacts>,
    /// Workers that ended early, with why.
    pub workers_failed: Vec<String>,
    /// The embedded SFU's ledger.
    pub ledger: Option<LedgerFacts>,
    /// Data messages.
    pub data: Option<DataFacts>,
    /// Calls between participants; `None` without.
    pub rpc: Option<RpcFacts>,
    /// What the server's sender reports say.
    pub senders: SenderFacts,
    /// Subscribers that lost packets for good.
    pub subscribers_lossy: u64,
    /// Recordings and captures that were asked for and are not whole, with the reason.
    pub files_lost: Vec<String>,
}

/// Interruptions of one kind of media with one cause and reason.
#[derive(Debug, Clone, PartialEq)]
pub struct CauseGroup {
    /// Video rather than audio.
    pub video: bool,
    /// Why.
    pub cause: Cause,
    /// More of it, where known.
    pub reason: Option<String>,
    /// Subscribers that had one.
    pub subscribers: u64,
    /// Tracks of theirs that had one.
    pub tracks: u64,
    /// Tracks of this kind that they had.
    pub of_tracks: u64,
    /// Their lengths together.
    pub total_s: f64,
    /// How long they took together for the median subscriber, in its worst track.
    pub length_s_p50: f64,
    /// When the first one began, since the start of the run.
    pub from_s: f64,
    /// How long after the first began the last ended, if each track had one that ended.
    pub back_after_s: Option<f64>,
    /// Subscribers of which a track did not come back.
    pub not_back: u64,
}

/// What the verdict has to know of watch time.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WatchFacts {
    /// Subscribers that were expected to watch.
    pub subscribers: u64,
    /// Of video and of audio.
    pub kinds: [Missed; 2],
    /// Gaps shorter than an interruption by [`Cause::ALL`], of both.
    pub short_gaps_s: [f64; Cause::ALL.len()],
    /// By cause, what took most time first.
    pub groups: Vec<CauseGroup>,
}

impl Facts {
    /// True if a server answered and refused at least one join, or ended one.
    pub fn refused(&self) -> bool {
        self.counted().any(|error| error.class.is_refusal())
    }

    /// Sessions that the server flooded.
    pub fn flooded(&self) -> u64 {
        let floods = self.counted().filter(|error| error.class == ErrorClass::Flooded);
        floods.map(|error| error.count).sum()
    }

    /// Errors that happened.
    pub fn counted(&self) -> impl Iterator<Item = &ErrorFact> {
        self.errors.iter().filter(|error| error.count > 0)
    }

    /// How long the embedded SFU had no time left, in seconds, if that explains that somebody missed
    /// `missed_s`: who is kept out by it needs as long again to come back.
    pub fn sfu_full_s(&self, missed_s: f64) -> Option<f64> {
        let full_s = self.ledger?.full_s;
        (full_s > 0.0 && missed_s <= 2.0 * full_s).then_some(full_s)
    }

    /// What an error of this kind means.
    pub fn class_of(&self, kind: &str) -> ErrorClass {
        let found = self.errors.iter().find(|error| error.kind == kind);
        found.map_or(ErrorClass::Other, |error| error.class)
    }
}
