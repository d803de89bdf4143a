//! One WebRTC peer connection without sockets, threads or clocks.

mod addresses;
mod answer;
mod candidates;
mod config;
#[cfg(test)]
mod differential_tests;
mod event;
mod extensions;
mod failure;
mod fast;
mod formats;
mod notes;
mod outbox;
mod publishing;
mod receiving;
mod wire;

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use stampede_sdp::{Description, MediaType};
use str0m::change::{SdpAnswer, SdpOffer};
use str0m::media::KeyframeRequestKind;
use str0m::net::{Protocol, Receive};
use str0m::rtp::{AbsCaptureTime, RtpPacket};
use str0m::{Candidate, Event, IceConnectionState, Input, Output, Reason, Rtc};

use answer::Answer;
pub use candidates::{
    AddressWish, LOCAL_ADDRESSES_MAX, LocalId, NO_PAIR_AFTER, OTHER_ROUTE_AFTER,
    REMOTE_CANDIDATES_MAX, RouteLookup, UNUSED_LOCAL_AFTER,
};
use candidates::{Candidates, is_stun};
pub use event::{
    CreatePeerError, NegotiateError, PeerEvent, PeerNote, PeerSink, RecordedFrame, RecordedStream,
};
pub use failure::{Heard, MediaFailure, NoCandidatePair, RemoteCandidate};
use fast::{ExtensionIds, FastPath, Surroundings};
use formats::Formats;
pub use notes::TRACK_NOTES_MAX;
pub use outbox::OUTBOX_DATAGRAMS_MAX;
use outbox::Outbox;
use publishing::Publishing;
use receiving::{Accepted, Receiving};
use wire::RtpHeader;

use crate::srtp::KeySlot;
use crate::watch::StreamCover;
use crate::{
    Arrival, Capture, CaptureLimits, PeerCounters, PeerDatagrams, PeerOptions, PeerReport,
    PublishTrack, ReceivePath, TransportCounters,
};

/// How often str0m's statistics are read. The NACK counts come from them: str0m encrypts RTCP
/// before it hands it out, and copying every packet for inspection (its raw packet events) costs
/// more than a reading a second. [`Peer::close`] reads them once more.
pub const STATS_INTERVAL: Duration = Duration::from_secs(1);
/// Most reports kept of streams that a later offer closed. Further ones are counted in the sums
/// and in [`PeerReport::streams_left_out`].
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
pub const SETTLE_GRACE: Duration = Duration::from_millis(50);
/// On its own path str0m asks to be woken every 33 ms for NACKs, also while nothing is missing. It
/// is then woken this seldom instead; each datagram drives its timers too.
const IDLE_WAKE: Duration = Duration::from_millis(200);
/// Outputs taken from str0m after one input; a bound against an endless loop, far above need.
const OUTPUTS_MAX: usize = 100_000;

/// The address of a peer without sockets.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

#[derive(Debug)]
enum Role {
    Subscriber(Box<Receiving>),
    Publisher(Box<Publishing>),
}

/// One peer connection. See the crate's page for the order of calls.
pub struct Peer {
    /// Ten kilobytes that a packet on the fast path does not touch.
    rtc: Box<Rtc>,
    receive_path: ReceivePath,
    /// Where the latest datagram came in; unspecified while there is no socket.
    local: SocketAddr,
    /// The only local address, if there is but one, as mostly.
    sole: Option<LocalId>,
    candidates: Box<Candidates>,
    /// When there is something to do about them.
    candidates_at: Option<Instant>,
    /// Where the latest datagram came from.
    remote: Option<SocketAddr>,
    role: Role,
    /// Receives in str0m's place, once there are keys.
    fast: Option<Box<FastPath>>,
    /// Where DTLS leaves the keys, until the fast path has them.
    keys: Option<KeySlot>,
    #[cfg(test)]
    exported: Option<KeySlot>,
    outbox: Outbox,
    transport: TransportCounters,
    /// What `outbox` had handed out and dropped when measuring began.
    outbox_before_window: (u64, u64),
    /// When str0m wants to be woken, and whether only for NACKs.
    wake: Instant,
    wake_for_nack: bool,
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
        f.debug_struct("Peer").field("local", &self.local).field("role", &self.role).finish()
    }
}

impl Peer {
    /// A peer that receives what the server offers. With `recording` it puts complete frames of
    /// its streams together for [`PeerSink::recorded`]. `local` is its first local address, that of
    /// [`LocalId::default`], if it is to have one before any candidate of the server is known.
    pub fn subscriber(
        now: Instant,
        local: impl Into<Option<SocketAddr>>,
        options: &PeerOptions,
        recording: bool,
    ) -> Result<Self, CreatePeerError> {
        let local = local.into();
        let build = || config::build(config::subscriber(options), now, local);
        let (rtc, slot) = crate::crypto::with_key_slot(build);
        let role = Role::Subscriber(Box::new(Receiving::new(options.playout_deadline, recording)));
        let mut peer = Self::new(rtc?, options, now, local, role);
        #[cfg(test)]
        peer.exported.replace(slot.clone());
        peer.keys = (options.receive_path == ReceivePath::Fast).then_some(slot);
        Ok(peer)
    }

    /// A peer that sends `tracks`, from when it is connected. `local` as in [`Self::subscriber`].
    pub fn publisher(
        now: Instant,
        local: impl Into<Option<SocketAddr>>,
        options: &PeerOptions,
        tracks: Vec<PublishTrack>,
    ) -> Result<Self, CreatePeerError> {
        if tracks.is_empty() {
            return Err(CreatePeerError::NoTracks);
        }
        for track in &tracks {
            track
                .validate()
                .map_err(|source| CreatePeerError::Track { cid: track.cid.clone(), source })?;
        }
        // LiveKit takes the first codec of an m-line, and str0m offers the same list on each.
        let mut codecs = tracks.iter().filter_map(PublishTrack::video_codec);
        if let Some(first) = codecs.next()
            && let Some(second) = codecs.find(|&codec| codec != first)
        {
            return Err(CreatePeerError::TwoCodecs { first, second });
        }
        let local = local.into();
        let rtc = config::build(config::publisher(options, &tracks), now, local)?;
        let publishing = Publishing::new(tracks, options.retransmit_cache_packets_max);
        let role = Role::Publisher(Box::new(publishing));
        let mut peer = Self::new(rtc, options, now, local, role);
        peer.receive_path = ReceivePath::Str0m;
        Ok(peer)
    }

    fn new(
        rtc: Rtc,
        options: &PeerOptions,
        now: Instant,
        local: Option<SocketAddr>,
        role: Role,
    ) -> Self {
        Self {
            rtc: Box::new(rtc),
            receive_path: options.receive_path,
            local: local.unwrap_or(NOWHERE),
            sole: local.map(|_| LocalId::default()),
            candidates: Box::new(Candidates::new(local, options.route)),
            candidates_at: None,
            remote: None,
            role,
            fast: None,
            keys: None,
            #[cfg(test)]
            exported: None,
            outbox: Outbox::default(),
            transport: TransportCounters::default(),
            outbox_before_window: (0, 0),
            wake: now,
            wake_for_nack: false,
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

    /// Takes the server's offer (subscriber) and returns the answer, which only receives whatever
    /// direction is offered. Streams that the offer no longer names are
    /// closed, also where another track took over their m-line. `mid_to_track_id` is LiveKit's, and
    /// may be empty.
    pub fn accept_offer(
        &mut self,
        now: Instant,
        sdp: &str,
        mid_to_track_id: &[(String, String)],
    ) -> Result<String, NegotiateError> {
        let Role::Subscriber(receiving) = &mut self.role else {
            return Err(NegotiateError::WrongRole("a publisher takes no offers"));
        };
        let offer = parse_description("offer", sdp)?;
        let answer = match self.receive_path {
            ReceivePath::Fast => {
                let transport = str0m_answer(&mut self.rtc, &answer::transport_offer(&offer))?;
                receiving.answers += 1;
                answer::answer(&offer, &transport, receiving.answers)
                    .map_err(|error| unreadable("answer", &error))?
            }
            ReceivePath::Str0m => {
                let text = str0m_answer(&mut self.rtc, &only_sent(&offer))?;
                // Header extensions are str0m's to read.
                Answer { text, formats: Formats::of(&self.rtc), ids: ExtensionIds::default() }
            }
        };
        (receiving.formats, receiving.ids) = (answer.formats, answer.ids);
        let gone = receiving.apply_offer(now, &offer, mid_to_track_id, &mut self.outbox);
        if self.receive_path == ReceivePath::Str0m {
            for ssrc in gone {
                self.rtc.direct_api().remove_stream_rx(ssrc.into());
            }
        }
        if let Some(fast) = &mut self.fast {
            fast.negotiated(receiving);
        }
        (self.negotiated, self.described) = (true, true);
        self.remote_described(now, &offer);
        Ok(answer.text)
    }

    /// Makes the offer of all tracks (publisher).
    pub fn create_offer(&mut self, now: Instant) -> Result<String, NegotiateError> {
        let Role::Publisher(publishing) = &mut self.role else {
            return Err(NegotiateError::WrongRole("a subscriber makes no offers"));
        };
        let offer = publishing.create_offer(&mut self.rtc)?;
        self.described = true;
        self.advance(now);
        Ok(offer)
    }

    /// Makes an offer that restarts ICE and changes nothing else (publisher; RFC 8445 §9). What was
    /// negotiated goes on while it is open.
    pub fn restart_ice(&mut self, now: Instant) -> Result<String, NegotiateError> {
        let Role::Publisher(publishing) = &mut self.role else {
            return Err(NegotiateError::WrongRole("the server restarts a subscriber's ICE"));
        };
        let offer = publishing.restart_ice(&mut self.rtc)?;
        self.advance(now);
        Ok(offer)
    }

    /// Takes the server's answer to the latest offer (publisher). With
    /// [`NegotiateError::TrackRefused`] the other tracks are sent all the same.
    pub fn accept_answer(&mut self, now: Instant, sdp: &str) -> Result<(), NegotiateError> {
        let Role::Publisher(publishing) = &mut self.role else {
            return Err(NegotiateError::WrongRole("a subscriber takes no answers"));
        };
        let description = parse_description("answer", sdp)?;
        let answer =
            SdpAnswer::from_sdp_string(sdp).map_err(|error| unreadable("answer", &error))?;
        let pending = publishing.take_pending()?;
        if let Err(error) = self.rtc.sdp_api().accept_answer(pending, answer) {
            return Err(self.refused("answer", &error));
        }
        let answered = publishing.answered(&mut self.rtc);
        if self.connected {
            publishing.start(now);
        }
        self.negotiated = true;
        self.remote_described(now, &description);
        answered
    }

    /// Takes a trickled candidate, `candidate:…`. Those that can't be used (TCP, host names, the
    /// empty end-of-candidates line) are passed over, and remembered for
    /// [`MediaFailure::NoCandidatePair`].
    pub fn add_remote_candidate(
        &mut self,
        now: Instant,
        candidate_line: &str,
    ) -> Result<(), NegotiateError> {
        let line = candidate_line.trim();
        let line = line.strip_prefix("a=").unwrap_or(line);
        if line.is_empty() {
            return Ok(());
        }
        let Some(candidate) = stampede_sdp::Candidate::parse(line) else {
            let reason = "it has too few words".to_owned();
            return Err(NegotiateError::Parse { what: "candidate", reason });
        };
        let is_remembered = self.candidates.remote(self.now.max(now), &candidate);
        let is_usable = candidate.is_udp() && candidate.socket_address().is_some();
        if !is_remembered || !is_usable {
            return Ok(());
        }
        let candidate =
            Candidate::from_sdp_string(line).map_err(|error| unreadable("candidate", &error))?;
        if candidate.proto() == Protocol::Udp {
            self.rtc.add_remote_candidate(candidate);
            self.advance(now);
        }
        Ok(())
    }

    /// Takes what signalling knows and media does not tell. A note for the other role, or for a
    /// track that is not there, changes nothing.
    pub fn note(&mut self, note: PeerNote) {
        match &mut self.role {
            Role::Subscriber(receiving) => receiving.note(self.now, note),
            Role::Publisher(publishing) => publishing.note(note),
        }
    }

    /// Takes a datagram from the peer's socket, the one of [`Self::received_on`]. Whatever it is, it
    /// is counted and never an error. `at` is when the kernel received it.
    pub fn handle_datagram(&mut self, at: Arrival, source: SocketAddr, payload: &[u8]) {
        if self.closed {
            return;
        }
        self.transport.datagrams.received += 1;
        self.remote = Some(source);
        self.clock = Some(at);
        self.now = self.now.max(at.instant);
        if let (Some(fast), Role::Subscriber(receiving)) = (&mut self.fast, &mut self.role)
            && fast::is_srtp(payload)
        {
            let (transport, outbox) = (&mut self.transport, &mut self.outbox);
            let mut around = Surroundings { receiving, transport, outbox };
            fast.receive(at, source, payload, &mut around);
            return;
        }
        let header = RtpHeader::parse(payload);
        let Ok(receive) = Receive::new(Protocol::Udp, source, self.local, payload) else {
            self.transport.malformed += 1;
            return;
        };
        if is_stun(payload) {
            self.candidates.heard(self.outbox.via, source, payload);
        } else if self.sole.is_none() {
            self.candidates.carries(self.outbox.via);
        }
        if let Err(error) = self.rtc.handle_input(Input::Receive(self.now, receive)) {
            self.failed(&error);
        }
        let packet = self.poll();
        match &mut self.role {
            Role::Subscriber(_) => self.account(header, packet, at),
            Role::Publisher(_) => {}
        }
    }

    /// Tells the peer the time; call it when the instant that [`Self::drain`] returned has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        if !self.closed {
            self.advance(now);
        }
    }

    /// Sends what is due and hands everything that waits to `sink`. Returns when the peer wants
    /// [`Self::handle_timeout`] and another drain.
    pub fn drain(&mut self, now: Instant, sink: &mut dyn PeerSink) -> Instant {
        if self.closed {
            self.outbox.flush(sink);
            return now + Duration::from_secs(3_600);
        }
        self.now = self.now.max(now);
        let now = self.now;
        let wanted = match &mut self.role {
            Role::Publisher(publishing) => {
                if publishing.write_due(now, self.clock, &mut self.rtc, &mut self.outbox) {
                    self.advance(now);
                }
                self.publisher_wake()
            }
            Role::Subscriber(_) => self.drain_receiving(now),
        };
        self.outbox.flush(sink);
        wanted.map_or(self.wake, |wanted| wanted.min(self.wake))
    }

    fn publisher_wake(&self) -> Option<Instant> {
        match &self.role {
            Role::Publisher(publishing) if self.connected => publishing.next_due(),
            _ => None,
        }
    }

    fn drain_receiving(&mut self, now: Instant) -> Option<Instant> {
        let Role::Subscriber(receiving) = &mut self.role else { return None };
        if let Some(settled) = now.checked_sub(SETTLE_GRACE) {
            receiving.settle(settled, &mut self.outbox);
        }
        let (ssrcs, next_request) = match self.connected {
            true => receiving.keyframe_requests(now),
            false => (Vec::new(), None),
        };
        let deadline = receiving.next_deadline();
        let asked = !ssrcs.is_empty();
        if let Some(fast) = &mut self.fast {
            if asked {
                fast.request_keyframes(&ssrcs, &mut self.outbox);
            }
            let fast_due = fast.poll(now, receiving, &mut self.outbox);
            let settle = deadline.map(settle_at);
            return settle.into_iter().chain(next_request).chain([fast_due]).min();
        }
        for ssrc in ssrcs {
            if let Some(stream) = self.rtc.direct_api().stream_rx(&ssrc.into()) {
                stream.request_keyframe(KeyframeRequestKind::Pli);
            }
        }
        if asked {
            self.advance(now);
        }
        if deadline.is_none() && std::mem::take(&mut self.wake_for_nack) {
            self.wake = self.wake.max(now + IDLE_WAKE);
        }
        deadline.map(settle_at).into_iter().chain(next_request).min()
    }

    /// Says good-bye (DTLS close_notify; of a publisher's streams RTCP BYE too) and stops.
    /// [`Self::final_report`] still works.
    pub fn close(&mut self, now: Instant, sink: &mut dyn PeerSink) {
        if self.closed {
            self.outbox.flush(sink);
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
        if let Role::Subscriber(receiving) = &mut self.role {
            receiving.finish(now, &mut self.outbox);
        }
        self.closed = true;
        self.outbox.flush(sink);
    }

    /// Hands out what is new of the time that each received stream covers, each span once: ask
    /// about once a second, and once more after [`Self::close`].
    pub fn covers(&mut self, hand_out: &mut dyn FnMut(StreamCover)) {
        if let Role::Subscriber(receiving) = &mut self.role {
            receiving.covers(self.closed, hand_out);
        }
    }

    /// A datagram for this peer was dropped, or is held back for long, on purpose; its stream's gaps
    /// are then nobody's fault.
    pub fn dropped_on_purpose(&mut self, payload: &[u8]) {
        if let (Role::Subscriber(receiving), Some(header)) =
            (&mut self.role, RtpHeader::parse(payload))
        {
            receiving.dropped_on_purpose(header.ssrc);
        }
    }

    /// Keeps the last packets of a subscriber from now on; see [`Capture`].
    pub fn start_capture(&mut self, limits: CaptureLimits) {
        if let Role::Subscriber(receiving) = &mut self.role {
            receiving.capture = Some(Box::new(Capture::new(limits)));
        }
    }

    /// True for a peer made with [`Self::subscriber`].
    pub fn is_subscriber(&self) -> bool {
        matches!(self.role, Role::Subscriber(_))
    }

    /// The last packets, if they are kept.
    pub fn capture(&self) -> Option<&Capture> {
        match &self.role {
            Role::Subscriber(receiving) => receiving.capture.as_deref(),
            Role::Publisher(_) => None,
        }
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
        let (sent, dropped) = self.outbox_before_window;
        let mut counters = PeerCounters {
            transport: TransportCounters {
                datagrams: PeerDatagrams {
                    sent: self.outbox.sent - sent,
                    ..self.transport.datagrams
                },
                dropped_unsent: self.outbox.dropped - dropped,
                ..self.transport
            },
            ..PeerCounters::default()
        };
        match &self.role {
            Role::Subscriber(receiving) => {
                (counters.video, counters.audio) = receiving.counters();
            }
            Role::Publisher(publishing) => counters.publish = publishing.counters(),
        }
        counters
    }

    /// Settles what is still open and reports everything. Call it after [`Self::close`]: it drops
    /// recorded frames that no drain can hand out any more.
    pub fn final_report(&mut self, now: Instant) -> PeerReport {
        let mut report = PeerReport::default();
        match &mut self.role {
            Role::Subscriber(receiving) => {
                if !self.closed {
                    receiving.finish(now, &mut self.outbox);
                }
                (report.streams, report.streams_left_out) = receiving.reports();
            }
            Role::Publisher(publishing) => report.published = publishing.reports(),
        }
        report.counters = self.counters();
        report
    }

    /// The measured window begins: all counts begin again from 0 (the ramp is excluded). What is
    /// known of decoding and of the connection stays.
    pub fn begin_measuring(&mut self, now: Instant) {
        self.transport = TransportCounters::default();
        self.outbox_before_window = (self.outbox.sent, self.outbox.dropped);
        match &mut self.role {
            Role::Subscriber(receiving) => receiving.begin_measuring(now),
            Role::Publisher(publishing) => publishing.begin_measuring(),
        }
    }

    fn arrival(&self, now: Instant) -> Arrival {
        let unix_ns = self.clock.map_or(0, |clock| {
            let since = now.saturating_duration_since(clock.instant);
            clock.unix_ns + u64::try_from(since.as_nanos()).unwrap_or(0)
        });
        Arrival { instant: now, unix_ns }
    }

    /// Moves str0m's time on and takes what it has to say.
    fn advance(&mut self, now: Instant) {
        self.now = self.now.max(now);
        if let Err(error) = self.rtc.handle_input(Input::Timeout(self.now)) {
            self.failed(&error);
        }
        self.poll();
        self.mind_candidates();
    }

    /// A description str0m can't apply; some of them end the connection (no fingerprint).
    fn refused(&mut self, what: &'static str, error: &str0m::RtcError) -> NegotiateError {
        self.failed(error);
        NegotiateError::Apply { what, reason: error.to_string() }
    }

    fn failed(&mut self, error: &str0m::RtcError) {
        self.transport.errors += 1;
        tracing::debug!(local = %self.local, %error, "str0m");
        if !self.rtc.is_alive() {
            let reason = error.to_string();
            self.disconnect(match self.ice_worked {
                true => self.failure(reason),
                false => MediaFailure::Broke { reason },
            });
        }
    }

    fn disconnect(&mut self, failure: MediaFailure) {
        if !std::mem::replace(&mut self.disconnected, true) {
            self.outbox.event(PeerEvent::Disconnected { failure: Box::new(failure) });
        }
    }

    /// Drains str0m into the outbox; returns the RTP packet it may have had (at most one an input).
    fn poll(&mut self) -> Option<RtpPacket> {
        let mut packet = None;
        for _ in 0..OUTPUTS_MAX {
            match self.rtc.poll_output() {
                Ok(Output::Timeout(at)) => {
                    self.wake = self.candidates_at.map_or(at, |due| due.min(at));
                    self.wake_for_nack = self.rtc.last_timeout_reason() == Reason::Nack;
                    return packet;
                }
                // SRTCP comes from one place: see `SrtcpSealer`.
                Ok(Output::Transmit(transmit))
                    if (self.fast.is_some() || self.keys.is_some())
                        && fast::is_rtcp(&transmit.contents) => {}
                Ok(Output::Transmit(transmit)) => self.transmit(transmit),
                Ok(Output::Event(Event::RtpPacket(received))) => packet = Some(received),
                Ok(Output::Event(event)) => self.event(event),
                Err(error) => {
                    self.failed(&error);
                    // One error doesn't end the connection; try again with the next input.
                    self.wake = self.now + IDLE_WAKE;
                    self.wake_for_nack = false;
                    return packet;
                }
            }
        }
        packet
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::IceConnectionStateChange(state) => self.ice_state(state),
            Event::Connected => {
                self.connected = true;
                self.candidates.connected(self.now, self.outbox.via);
                self.candidates_at = self.candidates.tidy_at();
                self.start_fast_path();
                self.outbox.event(PeerEvent::Connected);
                if let Role::Publisher(publishing) = &mut self.role {
                    publishing.start(self.now);
                }
            }
            Event::Closed => {
                let failure = self.failure("the server closed the connection".to_owned());
                self.disconnect(failure);
            }
            Event::KeyframeRequest(request) => {
                if let Role::Publisher(publishing) = &mut self.role {
                    publishing.keyframe_requested(request.mid, request.rid);
                }
            }
            Event::MediaIngressStats(stats) => {
                if let Role::Subscriber(receiving) = &mut self.role {
                    receiving.set_nack_sent(&stats.mid, stats.nacks);
                }
            }
            Event::MediaEgressStats(stats) => {
                if let Role::Publisher(publishing) = &mut self.role {
                    publishing.set_stats(&stats);
                }
            }
            Event::SenderFeedback(report) => {
                let at = self.arrival(report.received_at);
                if let Role::Subscriber(receiving) = &mut self.role {
                    let info = report.sender_info;
                    receiving.set_sender_report(*info.ssrc, info.sender_packet_count.into(), at);
                }
            }
            _ => {}
        }
    }

    /// Begins to receive, with the keys that DTLS left (on the fast path).
    fn start_fast_path(&mut self) {
        let (Some(slot), Role::Subscriber(receiving)) = (self.keys.take(), &self.role) else {
            return;
        };
        let ssrc = *self.rtc.direct_api().new_ssrc();
        let fast = match slot.get() {
            Some(keying) => FastPath::new(keying, ssrc, self.now).map_err(|e| e.to_string()),
            None => Err("DTLS handed out no SRTP keys".to_owned()),
        };
        match fast {
            Ok(mut fast) => {
                fast.negotiated(receiving);
                self.fast = Some(Box::new(fast));
            }
            Err(reason) => {
                self.transport.errors += 1;
                self.disconnect(MediaFailure::Broke { reason });
            }
        }
    }

    fn ice_state(&mut self, state: IceConnectionState) {
        match state {
            IceConnectionState::Connected | IceConnectionState::Completed => {
                self.candidates.checking = false;
                (self.ice_worked, self.ice_failed) = (true, false);
                if !std::mem::replace(&mut self.ice_connected, true) {
                    self.disconnected = false;
                    self.outbox.event(PeerEvent::IceConnected);
                }
            }
            IceConnectionState::Disconnected if self.candidates.checking => {
                // Another candidate or another address of ours may still do; see
                // `mind_candidates`.
                self.ice_failed = true;
                self.candidates_at = Some(self.now);
            }
            IceConnectionState::Disconnected => self.ice_lost(),
            IceConnectionState::Checking => self.ice_failed = false,
            IceConnectionState::New => {}
        }
    }

    /// Enters one datagram into the ledgers.
    fn account(&mut self, header: Option<RtpHeader>, packet: Option<RtpPacket>, at: Arrival) {
        let (Some(header), Role::Subscriber(receiving)) = (header, &mut self.role) else { return };
        let mut route = receiving.route(header.ssrc);
        let Some(packet) = packet else {
            match route {
                _ if !self.connected => self.transport.before_connected += 1,
                None => self.transport.unknown_ssrc += 1,
                Some(route) => {
                    self.transport.rejected += u64::from(receiving.refuse(route, &header, at));
                }
            }
            return;
        };
        if route.is_none() {
            let mid = packet.header.ext_vals.mid;
            let main = *packet.header.ssrc;
            let outbox = &mut self.outbox;
            route = receiving.adopt(at.instant, header.ssrc, main, mid.as_deref(), outbox);
        }
        let Some(route) = route else {
            self.transport.unknown_ssrc += 1;
            return;
        };
        let accepted = Accepted {
            sequence: packet.header.sequence_number,
            timestamp: packet.header.timestamp,
            marker: packet.header.marker,
            payload_type: *packet.header.payload_type,
            payload: &packet.payload,
            captured_unix_ns: packet.header.ext_vals.abs_capture_time.and_then(unix_ns),
            dependency_descriptor: extensions::descriptor_of(&packet.header.ext_vals),
        };
        receiving.accept(route, accepted, at, &mut self.outbox);
    }
}

/// A capture time in nanoseconds since the Unix epoch. An offset between the sender's clock and
/// the capturer's, where there is one, is of no use here: stamps of other clocks are not used.
fn unix_ns(captured: AbsCaptureTime) -> Option<u64> {
    let since = captured.capture_time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    u64::try_from(since.as_nanos()).ok()
}

/// When to settle a gap with this deadline: `settle` gives up what was due before its time, so one
/// tick after.
fn settle_at(deadline: Instant) -> Instant {
    deadline + SETTLE_GRACE + Duration::from_micros(1)
}

/// str0m's answer to an offer.
fn str0m_answer(rtc: &mut Rtc, offer: &str) -> Result<String, NegotiateError> {
    let offer = SdpOffer::from_sdp_string(offer).map_err(|error| unreadable("offer", &error))?;
    let answer = rtc
        .sdp_api()
        .accept_offer(offer)
        .map_err(|e| NegotiateError::Apply { what: "offer", reason: e.to_string() })?;
    Ok(answer.to_sdp_string())
}

fn parse_description<'a>(
    what: &'static str,
    sdp: &'a str,
) -> Result<Description<'a>, NegotiateError> {
    Description::parse(sdp).map_err(|error| unreadable(what, &error))
}

fn unreadable(what: &'static str, error: &dyn std::error::Error) -> NegotiateError {
    NegotiateError::Parse { what, reason: error.to_string() }
}

/// The offer for str0m, with the directions that LiveKit means: it says `sendrecv` where it only
/// sends, and `recvonly` for a track that is gone.
fn only_sent(offer: &Description<'_>) -> String {
    offer.rewrite(|media, line| {
        let is_media = media.is_some_and(|media| media.media_type != MediaType::Application);
        Some(Cow::Borrowed(match line {
            "a=sendrecv" if is_media => "a=sendonly",
            "a=recvonly" if is_media => "a=inactive",
            _ => line,
        }))
    })
}
