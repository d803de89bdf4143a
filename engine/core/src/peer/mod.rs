//! One WebRTC peer connection without sockets, threads or clocks.

mod addresses;
mod answer;
mod candidates;
mod channels;
mod config;
mod connection;
mod event;
mod failure;
mod handover;
mod negotiation;
mod offer;
mod outbox;
mod publishing;
mod receiving;
mod recovery;
mod relaying;
mod relays;
mod rpc;
mod way;
mod wire;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use stampede_counters::ImpairCounters;
use str0m::net::{Protocol, Receive};
use str0m::{Input, Rtc};

pub use candidates::{
    AddressRequest, LOCAL_ADDRESSES_MAX, LocalId, NETWORK_CHANGES_MAX, NO_PAIR_AFTER,
    OTHER_ROUTE_AFTER, RELAYS_MAX, REMOTE_CANDIDATES_MAX, RouteLookup, TCP_AFTER, TURN_AFTER,
    UNUSED_LOCAL_AFTER, WAYS_MAX,
};
use candidates::{Candidates, is_stun};
use channels::Channels;
pub use event::{
    BackupTrack, Callee, ChangeNetworkError, CreatePeerError, NegotiateError, PeerEvent, PeerRole,
    PeerSink, PeerUpdate, Receives, RecordedFrame, RecordedStream,
};
pub use failure::{Heard, MediaFailure, NoCandidatePair, RemoteCandidate};
use handover::Handover;
use offer::Offering;
pub use outbox::OUTBOX_DATAGRAMS_MAX;
use outbox::Outbox;
use publishing::Publishing;
use receiving::{Receiving, is_rtcp};
pub use receiving::{Scratch, TRACK_STATES_MAX};
use relays::Relays;
pub use relays::{NEXT_TURN_AFTER, TURN_SERVERS_MAX};
use rpc::Rpc;
use way::Nominated;
pub use wire::RtpHeader;

use crate::dtls::{has_plain_data, is_dtls};
use crate::srtp::KeySlot;
use crate::watch::StreamCover;
use crate::{
    Arrival, Capture, CaptureLimits, PeerCounters, PeerDatagrams, PeerOptions, PeerReport,
    PublishTrack, Transport, TransportCounters,
};

/// How often a publisher that adapts reads str0m's statistics: its counts of NACKs and of the server's
/// receiver reports come from them. [`Peer::close`] reads them once more.
pub const STATS_INTERVAL: Duration = Duration::from_secs(1);
/// Most reports kept of streams that a later offer closed. Further ones are counted in the sums
/// and in [`TransportCounters::streams_left_out`].
pub const CLOSED_STREAMS_MAX: usize = 256;
/// Least time between two PLIs of a stream; doubled with each, up to [`PLI_INTERVAL_MAX`], until a
/// complete keyframe came.
pub const PLI_INTERVAL_MIN: Duration = Duration::from_millis(300);
/// Most time between two PLIs of a stream.
pub const PLI_INTERVAL_MAX: Duration = Duration::from_secs(1);
/// No PLI for a stream of which nothing came for this long.
pub const PLI_WHILE_RECEIVED: Duration = Duration::from_secs(5);
/// A publisher's packets written in one drain; what else is due follows in the next one, which is
/// then wanted at once. The frame that reaches it is finished.
pub const PACKETS_PER_DRAIN_MAX: usize = 256;
/// Sent packets older than this are not retransmitted.
pub const RETRANSMIT_AGE_MAX: Duration = Duration::from_secs(3);
/// A gap is given up this long after its deadline: a datagram stamped before the deadline may
/// still wait in a socket. What arrives is judged by its stamp, so this moves no count.
pub const GAP_GRACE: Duration = Duration::from_millis(50);

/// The address of a peer without sockets.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// One peer connection. See the crate's page for the order of calls.
pub struct Peer {
    /// Ten kilobytes that a received packet does not touch.
    rtc: Box<Rtc>,
    /// Where the latest datagram came in; unspecified while there is no socket.
    local: SocketAddr,
    /// By what it came.
    protocol: Protocol,
    /// The only local address, if there is but one, as mostly.
    sole: Option<LocalId>,
    candidates: Box<Candidates>,
    /// The TURN servers that it may use, if the server named any.
    relays: Option<Box<Relays>>,
    /// Which ways may be tried.
    transport_asked: Transport,
    /// A bit for each of its ways that leads to one.
    relay_bits: u8,
    /// When there is something to do about them.
    candidates_at: Option<Instant>,
    /// Where the latest datagram came from.
    remote: Option<SocketAddr>,
    /// What it receives, if it does.
    receiving: Option<Box<Receiving>>,
    /// What it sends, if it does.
    publishing: Option<Box<Publishing>>,
    /// By which pair that leaves.
    nominated: Nominated,
    /// What it has to do with data, if anything.
    channels: Option<Box<Channels>>,
    /// The calls that it makes and answers, if any.
    rpc: Option<Box<Rpc>>,
    /// What came of calls, if they are another connection's.
    handover: Option<Box<Handover>>,
    /// What it offers to receive by, if it offers.
    offering: Option<Box<Offering>>,
    /// Answers given so far.
    answers: u64,
    outbox: Outbox,
    transport: TransportCounters,
    /// What `outbox` had handed out, dropped and withheld when measuring began.
    outbox_before_window: [u64; 3],
    /// When str0m wants to be woken.
    wake: Instant,
    /// Latest time given to str0m.
    now: Instant,
    /// Latest arrival: how the two clocks relate.
    clock: Option<Arrival>,
    /// A description of the server was applied.
    negotiated: bool,
    /// One of ours went out: it had the candidates that there were.
    described: bool,
    connected: bool,
    ice_connected: bool,
    /// A pair worked once.
    ice_worked: bool,
    /// There is no pair left to try.
    ice_failed: bool,
    disconnected: bool,
    closed: bool,
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer")
            .field("local", &self.local)
            .field("receiving", &self.receiving)
            .field("publishing", &self.publishing)
            .finish_non_exhaustive()
    }
}

/// Whether these can be sent.
fn check_tracks(tracks: &[PublishTrack]) -> Result<(), CreatePeerError> {
    for track in tracks {
        track
            .validate()
            .map_err(|source| CreatePeerError::Track { cid: track.cid.clone(), source })?;
    }
    Ok(())
}

impl Peer {
    /// A peer that only receives; see [`Self::with_role`].
    pub fn subscriber(
        now: Instant,
        local: impl Into<Option<SocketAddr>>,
        options: &PeerOptions,
        record: bool,
    ) -> Result<Self, CreatePeerError> {
        Self::with_role(now, local, options, PeerRole::subscriber(record))
    }

    /// A peer that only sends; see [`Self::with_role`].
    pub fn publisher(
        now: Instant,
        local: impl Into<Option<SocketAddr>>,
        options: &PeerOptions,
        tracks: Vec<PublishTrack>,
    ) -> Result<Self, CreatePeerError> {
        Self::with_role(now, local, options, PeerRole::publisher(tracks))
    }

    /// A peer with this role. One that sends makes the offers; one that only receives answers the
    /// server's, or offers itself ([`Self::create_offer`]). `local` is its first local address, that
    /// of [`LocalId::default`], if it is to have one before any candidate of the server is known.
    pub fn with_role(
        now: Instant,
        local: impl Into<Option<SocketAddr>>,
        options: &PeerOptions,
        role: PeerRole,
    ) -> Result<Self, CreatePeerError> {
        let PeerRole { receives, tracks, backups, data, rpc, calls_elsewhere } = role;
        let local = local.into();
        let sends_data = rpc.is_some() || data.as_ref().is_some_and(|data| data.sends.is_some());
        if receives.is_none() && tracks.is_empty() && !sends_data {
            return Err(CreatePeerError::NoTracks);
        }
        check_tracks(&tracks)?;
        for backup in &backups {
            check_tracks(std::slice::from_ref(&backup.track))?;
        }
        let config = match tracks.is_empty() {
            true => config::subscriber(options),
            false => config::publisher(options, &tracks, &backups),
        };
        let build = || config::build(config, now, local);
        let (rtc, keys) = match tracks.is_empty() {
            true => crate::crypto::with_own_srtp(build),
            false => crate::crypto::with_key_slot(build),
        };
        let mut peer = Self::new(rtc?, options, now, local);
        if let Some(receives) = receives {
            let receiving = Receiving::new(options, receives, KeySlot::clone(&keys));
            peer.receiving = Some(Box::new(receiving));
        }
        if !tracks.is_empty() {
            let publishing = Publishing::new(tracks, backups, options, keys);
            peer.publishing = Some(Box::new(publishing));
        }
        peer.channels = data.map(|data| Box::new(Channels::new(data)));
        peer.rpc = rpc.map(|rpc| Box::new(Rpc::new(rpc)));
        peer.handover = calls_elsewhere.then(Box::default);
        if peer.publishing.is_some() || receives.is_none() {
            peer.offering = Some(Box::new(peer.new_offering()));
        }
        Ok(peer)
    }

    /// A connection with neither half.
    fn new(rtc: Rtc, options: &PeerOptions, now: Instant, local: Option<SocketAddr>) -> Self {
        Self {
            rtc: Box::new(rtc),
            local: local.unwrap_or(NOWHERE),
            protocol: Protocol::Udp,
            sole: local.map(|_| LocalId::default()),
            candidates: Box::new(Candidates::new(local, options.route, options.transport)),
            relays: None,
            transport_asked: options.transport,
            relay_bits: 0,
            candidates_at: None,
            remote: None,
            receiving: None,
            publishing: None,
            nominated: Nominated::new(now),
            channels: None,
            rpc: None,
            handover: None,
            offering: None,
            answers: 0,
            outbox: Outbox::default(),
            transport: TransportCounters::default(),
            outbox_before_window: [0; 3],
            wake: now,
            now,
            clock: None,
            negotiated: false,
            described: false,
            connected: false,
            ice_connected: false,
            ice_worked: false,
            ice_failed: false,
            disconnected: false,
            closed: false,
        }
    }

    /// Takes what signalling knows and media does not tell. An update for a half that it does not
    /// have, or for a track that is not there, changes nothing.
    pub fn update(&mut self, update: PeerUpdate) {
        if let Some(publishing) = &mut self.publishing {
            publishing.update(&update);
            publishing.adapt(&mut self.rtc);
        }
        if let Some(channels) = &mut self.channels {
            match update {
                PeerUpdate::Leaving | PeerUpdate::Moved => channels.leave(),
                PeerUpdate::DataTrackPublished { handle } => channels.published(self.now, handle),
                _ => {}
            }
        }
        if let Some(rpc) = &mut self.rpc {
            match &update {
                // Whoever is moved calls and answers in the other room.
                PeerUpdate::Leaving => rpc.leave(),
                PeerUpdate::Met { others } => {
                    others.iter().for_each(|other| rpc.met(self.now, other));
                }
                PeerUpdate::Parted { sids } => sids.iter().for_each(|sid| rpc.parted(sid)),
                _ => {}
            }
        }
        if let Some(receiving) = &mut self.receiving {
            receiving.streams.update(self.now, update);
        }
    }

    /// Takes a datagram from the peer's socket, the one of [`Self::received_on`], as
    /// [`Self::relayed`] leaves it. Whatever it is, it is counted and never an error. `at` is when the kernel received it; `scratch` may be that of
    /// any peer.
    pub fn handle_datagram(
        &mut self,
        at: Arrival,
        source: SocketAddr,
        payload: &[u8],
        scratch: &mut Scratch,
    ) {
        if self.closed {
            return;
        }
        self.transport.datagrams.received += 1;
        self.remote = Some(source);
        self.clock = Some(at);
        self.now = self.now.max(at.instant);
        if let Some(receiving) = &mut self.receiving
            && receiving::is_srtp(payload)
        {
            let (transport, outbox) = (&mut self.transport, &mut self.outbox);
            receiving.receive(at, source, payload, transport, outbox, scratch);
            // What is said of what we send is not its.
            if self.publishing.is_none() || !is_rtcp(payload) {
                return;
            }
        }
        let Ok(receive) = Receive::new(self.protocol, source, self.local, payload) else {
            self.transport.malformed += 1;
            return;
        };
        // Before there are keys anybody could say what the server might.
        let is_strange = !self.connected && is_dtls(payload) && !self.candidates.is_servers(source);
        if is_strange || has_plain_data(payload) {
            self.transport.malformed += 1;
            return;
        }
        if is_stun(payload) {
            self.candidates.heard(self.outbox.via, source, payload);
            self.nominated.may_change(self.now);
        } else if self.sole.is_none() {
            self.candidates.carries(self.outbox.via);
        }
        if let Some(publishing) = &mut self.publishing
            && is_rtcp(payload)
        {
            if publishing.hears(payload, &mut self.outbox) {
                return;
            }
            if !publishing.is_for_str0m(payload) {
                self.transport.malformed += 1;
                return;
            }
        }
        if let Err(error) = self.rtc.handle_input(Input::Receive(self.now, receive)) {
            self.failed(&error);
        }
        self.poll();
    }

    /// Tells the peer the time; call it when the instant that [`Self::drain`] returned has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.closed {
            return;
        }
        match self.wants_timeout(now) {
            true => self.advance(now),
            false => self.now = self.now.max(now),
        }
    }

    /// Sends what is due and hands everything that waits to `sink`. Returns when the peer wants
    /// [`Self::handle_timeout`] and another drain.
    pub fn drain(&mut self, now: Instant, sink: &mut dyn PeerSink) -> Instant {
        if self.closed {
            self.flush(now, sink);
            return now + Duration::from_secs(3_600);
        }
        self.now = self.now.max(now);
        let now = self.now;
        self.send_media(now, sink);
        let up = self.is_connected() && self.ice_connected && !self.outbox.is_cut_off(now);
        if let Some(channels) = &mut self.channels
            && channels.advance(now, self.clock, up, &mut self.rtc)
        {
            self.advance(now);
        }
        if let Some(rpc) = &mut self.rpc
            && rpc.advance(now, self.clock, up, &mut self.rtc)
        {
            self.advance(now);
        }
        let mut wake = self.wake;
        if let Some(due) = self.rpc.as_ref().and_then(|rpc| rpc.next()) {
            wake = wake.min(due);
        }
        if let Some(due) = self.channels.as_ref().and_then(|channels| channels.next()) {
            wake = wake.min(due);
        }
        if let Some(publishing) = &self.publishing {
            let resends = publishing.has_resends().then_some(now);
            wake = publishing.next_due().into_iter().chain(resends).fold(wake, Instant::min);
        }
        if let Some(receiving) = &mut self.receiving
            && let Some(due) = receiving.drain(now, &mut self.outbox)
        {
            wake = wake.min(due);
        }
        self.flush(now, sink);
        wake
    }

    /// Says good-bye (DTLS close_notify; of a publisher's streams RTCP BYE too) and stops.
    /// [`Self::final_report`] still works.
    pub fn close(&mut self, now: Instant, sink: &mut dyn PeerSink) {
        if self.closed {
            self.flush(now, sink);
            return;
        }
        // Statistics are due once an interval; time may jump, for nothing comes after.
        self.advance(now);
        let end = self.now + STATS_INTERVAL;
        self.advance(end);
        if let Err(error) = self.rtc.close() {
            self.failed(&error);
        }
        self.poll();
        if let Some(receiving) = &mut self.receiving {
            receiving.streams.finish(now, &mut self.outbox);
        }
        if let Some(rpc) = &mut self.rpc {
            rpc.leave();
        }
        self.end_relays();
        self.closed = true;
        self.flush(now, sink);
    }

    /// Hands out what is new of the time that each received stream covers, each span once: ask
    /// about once a second, and once more after [`Self::close`].
    pub fn covers(&mut self, hand_out: &mut dyn FnMut(StreamCover)) {
        if let Some(receiving) = &mut self.receiving {
            receiving.streams.covers(self.closed, hand_out);
        }
    }

    /// A datagram for this peer was dropped, or is held back for long, on purpose; its stream's gaps
    /// are then nobody's fault.
    pub fn dropped_on_purpose(&mut self, payload: &[u8]) {
        if let (Some(receiving), Some(header)) = (&mut self.receiving, RtpHeader::parse(payload)) {
            receiving.streams.dropped_on_purpose(header.ssrc);
        }
    }

    /// Keeps the last packets that it receives from now on; see [`Capture`].
    pub fn start_capture(&mut self, limits: CaptureLimits) {
        if let Some(receiving) = &mut self.receiving {
            receiving.streams.capture = Some(Box::new(Capture::new(limits)));
        }
    }

    /// The last packets, if they are kept.
    pub fn capture(&self) -> Option<&Capture> {
        self.receiving.as_ref()?.streams.capture.as_deref()
    }

    /// The address at which its latest datagram came in.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// The first of its local addresses, while it has that one.
    pub fn first_local(&self) -> Option<SocketAddr> {
        self.candidates.local(LocalId::default())
    }

    /// DTLS is up, and nothing has broken since.
    pub fn is_connected(&self) -> bool {
        self.connected && !self.disconnected
    }

    /// Where its latest datagram came from.
    pub fn remote(&self) -> Option<SocketAddr> {
        self.remote
    }

    /// False once the connection can't be used any more.
    pub fn is_alive(&self) -> bool {
        !self.closed && self.rtc.is_alive()
    }

    /// What was counted so far: sums over streams, made on each call.
    pub fn counters(&self) -> PeerCounters {
        let [sent, dropped, withheld] = self.outbox_before_window;
        let mut counters = PeerCounters {
            transport: TransportCounters {
                datagrams: PeerDatagrams {
                    sent: self.outbox.sent - sent,
                    ..self.transport.datagrams
                },
                dropped_unsent: self.outbox.dropped - dropped,
                ..self.transport
            },
            impairment: ImpairCounters {
                unsent: self.outbox.withheld - withheld,
                ..ImpairCounters::default()
            },
            ..PeerCounters::default()
        };
        if let Some(receiving) = &self.receiving {
            (counters.video, counters.audio) = receiving.streams.counters();
            counters.transport.streams_left_out = receiving.streams.left_out();
        }
        if let Some(publishing) = &self.publishing {
            counters.publish = publishing.counters();
        }
        if let Some(channels) = &self.channels {
            counters.data = channels.counters();
        }
        if let Some(rpc) = &self.rpc {
            counters.rpc = rpc.counters();
        }
        if let Some(handover) = &self.handover {
            counters.rpc.dropped += handover.dropped;
        }
        counters
    }

    /// Ends what is still open and reports everything. Call it after [`Self::close`]: it drops
    /// recorded frames that no drain can hand out any more.
    pub fn final_report(&mut self, now: Instant) -> PeerReport {
        let mut report = PeerReport::default();
        if let Some(receiving) = &mut self.receiving {
            if !self.closed {
                receiving.streams.finish(now, &mut self.outbox);
            }
            report.streams = receiving.streams.reports();
        }
        if let Some(publishing) = &self.publishing {
            report.published = publishing.reports();
        }
        report.counters = self.counters();
        report
    }

    /// The measured window begins: all counts begin again from 0 (the ramp is excluded). What is
    /// known of decoding and of the connection stays.
    pub fn begin_measuring(&mut self, now: Instant) {
        self.transport = TransportCounters::default();
        let Outbox { sent, dropped, withheld, .. } = self.outbox;
        self.outbox_before_window = [sent, dropped, withheld];
        if let Some(receiving) = &mut self.receiving {
            receiving.streams.begin_measuring(now);
        }
        if let Some(publishing) = &mut self.publishing {
            publishing.begin_measuring();
        }
        if let Some(channels) = &mut self.channels {
            channels.begin_measuring();
        }
        if let Some(rpc) = &mut self.rpc {
            rpc.begin_measuring();
        }
        if let Some(handover) = &mut self.handover {
            handover.dropped = 0;
        }
    }
}
