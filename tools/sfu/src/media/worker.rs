//! A media worker: one pinned thread, one UDP socket, the peers sharded to it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use slab::Slab;
use stampede_impair::{Class, Cohorts, Fate, Held, Impairment, Loss};
use stampede_udp::{Backend, SocketId, Wait, unix_now_ns};
use str0m::ice::StunMessage;
use str0m::net::{Protocol, Receive, Transmit};
use str0m::rtp::RawPacket;
use str0m::rtp::rtcp::Rtcp;
use str0m::{Event as RtcEvent, IceConnectionState, Input, Output};

use super::egress;
use super::forward::want_keyframe;
use super::peer::{PEER_CHANNELS_MAX, Peer, PeerConfig, Subscription};
use super::timers::Timers;
use super::track::{MediaBatch, Track};
use super::{Command, Event, PeerKey, TrackKey, WorkerHandle, WorkerReport};
use crate::faults::{Malformer, SfuFaults};
use crate::ledger::{PublishedTrackLedger, SubscriberTrackLedger};

/// How long a poll gathers after its first datagram, so that the packets of a frame go to each
/// subscriber together. It adds to the latency of what the SFU forwards.
pub(crate) const GATHER: Duration = Duration::from_millis(1);

/// Longest sleep; nothing depends on it but the promptness of stopping.
const SLEEP_MAX: Duration = Duration::from_millis(200);

/// A peer is looked at this often at least: an ICE-lite agent sets no timer for the silence of
/// its client.
const PEER_CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Datagrams sent before anything else is looked at while participants join, about 20 ms of work. A
/// worker that fell behind may find thousands of packets, which are seconds of it for many
/// subscribers.
pub(crate) const SHARE_SENDS_MAX: usize = 8_192;
/// Packets of a track in a share, least: the runs in which a frame leaves should stay whole.
pub(crate) const SHARE_PACKETS_MIN: usize = 8;
/// The same, most.
pub(crate) const SHARE_PACKETS_MAX: usize = 64;

/// How long a peer that is not connected keeps the shares small. Else they are as large as they may
/// be, for long runs cost less a packet.
const JOINING: Duration = Duration::from_secs(15);

/// Packets of a track that wait for a later round while somebody joins; when there are more, their
/// shares are sent at once, and who joins waits.
pub(crate) const BURST_PACKETS_MAX: usize = 1_024;

/// How long commands are carried out between two polls, so that a flood of joins can't starve the
/// media; whatever the media takes, so much is left for joins.
const COMMANDS_TIME_MAX: Duration = Duration::from_millis(40);

/// Events that may wait for the signalling thread before clients' data messages are dropped, and
/// counted. A peer's other events are a handful that it can't repeat.
const BACKLOG_EVENTS_MAX: usize = 10_000;

/// Ledger rows of ended subscriptions and publications kept by a worker; the oldest is dropped.
pub(crate) const ENDED_ROWS_MAX: usize = 100_000;

/// Everything a worker owns. Lives on its thread.
pub(crate) struct Worker {
    pub(crate) index: usize,
    pub(crate) out: Outgoing,
    pub(crate) address: SocketAddr,
    pub(crate) commands: crossbeam_channel::Receiver<Command>,
    pub(crate) media: crossbeam_channel::Receiver<MediaBatch>,
    pub(crate) reports: crossbeam_channel::Receiver<crossbeam_channel::Sender<WorkerReport>>,
    pub(crate) events: tokio::sync::mpsc::Sender<Event>,
    /// Events that found the channel full.
    pub(crate) backlog: VecDeque<Event>,
    pub(crate) workers: Arc<OnceLock<Vec<WorkerHandle>>>,
    pub(crate) config: PeerConfig,
    pub(crate) cohorts: Cohorts,
    pub(crate) faults: SfuFaults,
    pub(crate) upstream_dropped: u64,
    pub(crate) seed: u64,
    /// Boxed: a peer is many kilobytes, and a growing slab would copy them all.
    pub(crate) peers: Slab<Box<Peer>>,
    pub(crate) peer_index: FxHashMap<PeerKey, usize>,
    pub(crate) by_ufrag: FxHashMap<String, usize>,
    pub(crate) by_address: FxHashMap<SocketAddr, usize>,
    pub(crate) tracks: Slab<Track>,
    pub(crate) track_index: FxHashMap<TrackKey, usize>,
    pub(crate) timers: Timers,
    pub(crate) generation: u64,
    /// Peers that are not connected yet, and when the last one was added.
    pub(crate) joining: usize,
    pub(crate) last_join: Option<Instant>,
    pub(crate) source_streams: u32,
    pub(crate) burst: u64,
    pub(crate) burst_tracks: Vec<usize>,
    pub(crate) mailbox_full: u64,
    pub(crate) messages_dropped: u64,
    pub(crate) datagrams_unknown: u64,
    pub(crate) ended_subscribed: VecDeque<(Arc<str>, Arc<str>, SubscriberTrackLedger)>,
    pub(crate) ended_published: VecDeque<(Arc<str>, PublishedTrackLedger)>,
    pub(crate) batch: Vec<(usize, usize)>,
    pub(crate) datagram: Vec<u8>,
}

/// The way out: the socket, and what is injected on the way.
pub(crate) struct Outgoing {
    pub(crate) backend: Box<dyn Backend>,
    pub(crate) socket: SocketId,
    /// Packets held back on purpose.
    pub(crate) held: Held<(SocketAddr, Box<[u8]>)>,
    pub(crate) malformer: Option<Malformer>,
    /// The time of this round.
    pub(crate) now: Instant,
    /// The time that the peer now drained was given: what its sender reports are about.
    pub(crate) fed_at: Instant,
}

/// A datagram to a peer that is still to be written.
pub(super) struct Datagram<'a> {
    pub(super) destination: SocketAddr,
    pub(super) class: Class,
    /// Bytes of it.
    pub(super) len: usize,
    /// Fills them in; false when it can't. The same each time it is called.
    pub(super) write: &'a mut dyn FnMut(&mut [u8]) -> bool,
}

impl Worker {
    /// Runs until told to stop or until the backend fails.
    pub(crate) fn run(mut self) {
        loop {
            let wait = Wait { timeout: self.sleep(), gather: GATHER, datagrams_max: usize::MAX };
            if let Err(error) = self.out.backend.poll(wait) {
                self.give_up(&error);
                return;
            }
            self.out.now = Instant::now();
            self.receive();
            self.answer_reports();
            if self.carry_out_commands() {
                break;
            }
            self.receive_media();
            self.forward();
            self.wake_due_peers();
            self.out.release_held();
            self.flush_events();
        }
        let indices: Vec<usize> = self.peers.iter().map(|(index, _)| index).collect();
        for index in indices {
            self.remove_peer(index);
        }
        self.out.backend.flush();
    }

    /// The backend is unusable: everybody on this worker is told to come back.
    fn give_up(&mut self, error: &std::io::Error) {
        tracing::error!(worker = self.index, %error, "the media socket failed; its peers end");
        let indices: Vec<usize> = self.peers.iter().map(|(index, _)| index).collect();
        for index in indices {
            self.fail(index, format!("the media socket failed: {error}"));
        }
        while !self.backlog.is_empty() && !self.events.is_closed() {
            std::thread::sleep(SLEEP_MAX / 20);
            self.flush_events();
        }
    }

    fn sleep(&self) -> Duration {
        let mail = !self.commands.is_empty() || !self.media.is_empty();
        if mail || !self.backlog.is_empty() || !self.burst_tracks.is_empty() {
            return Duration::ZERO;
        }
        let next = [self.timers.next(), self.out.held.next()].into_iter().flatten().min();
        next.map_or(SLEEP_MAX, |at| at.saturating_duration_since(Instant::now()).min(SLEEP_MAX))
    }

    /// Feeds the batch to the peers, grouped by peer.
    fn receive(&mut self) {
        let mut batch = std::mem::take(&mut self.batch);
        batch.clear();
        for i in 0..self.out.backend.batch().len() {
            let received = self.out.backend.batch()[i];
            let payload = self.out.backend.payload(&received);
            match self.peer_of(received.source, payload) {
                Some(peer) => batch.push((peer, i)),
                None => self.datagrams_unknown += 1,
            }
        }
        batch.sort_unstable();
        let unix_now_ns = unix_now_ns();
        for &(peer, i) in &batch {
            let received = self.out.backend.batch()[i];
            self.datagram.clear();
            self.datagram.extend_from_slice(self.out.backend.payload(&received));
            let age_ns = unix_now_ns.saturating_sub(received.received_at_unix_ns);
            let at = self
                .out
                .now
                .checked_sub(Duration::from_nanos(age_ns).min(Duration::from_secs(1)))
                .unwrap_or(self.out.now);
            self.receive_datagram(peer, received.source, at);
        }
        self.batch = batch;
    }

    /// Whose datagram this is: a connectivity check says so itself, anything else by its source.
    fn peer_of(&self, source: SocketAddr, payload: &[u8]) -> Option<usize> {
        if is_check(payload)
            && let Ok(message) = StunMessage::parse(payload)
            && let Some((ufrag, _)) = message.split_username()
        {
            return self.by_ufrag.get(ufrag).copied();
        }
        self.by_address.get(&source).copied()
    }

    /// Takes one datagram as if it had just arrived, for the benchmarks.
    pub(crate) fn take_datagram(&mut self, source: SocketAddr, datagram: Vec<u8>, at: Instant) {
        let Some(peer) = self.peer_of(source, &datagram) else { return };
        self.datagram = datagram;
        self.receive_datagram(peer, source, at);
    }

    /// A peer has sent an authentic check from this address. It is heard there from now on, unless
    /// another lives there, who must not be cut off by a check from its address.
    fn learn_address(&mut self, index: usize, address: SocketAddr) {
        let now = self.out.now;
        let owner = self.by_address.get(&address).copied().filter(|&owner| owner != index);
        let owner = owner.and_then(|owner| self.peers.get_mut(owner));
        let taken = owner.is_some_and(|owner| {
            let alive = !owner.ended && owner.addresses.lives_at(address, now);
            if !alive {
                owner.addresses.forget(address);
            }
            alive
        });
        let Some(peer) = self.peers.get_mut(index) else { return };
        let nominates = peer.nominating == Some(address);
        if taken {
            tracing::debug!(peer = peer.key.0, %address, "a check from where another peer lives");
            peer.addresses.refused(nominates, now);
            return;
        }
        let forgotten = peer.addresses.checked(address, nominates, now);
        self.by_address.insert(address, index);
        if let Some(forgotten) = forgotten {
            self.forget_address(index, forgotten);
        }
    }

    /// A peer is no longer heard at an address, if it was.
    pub(crate) fn forget_address(&mut self, index: usize, address: SocketAddr) {
        if self.by_address.get(&address) == Some(&index) {
            self.by_address.remove(&address);
        }
    }

    fn receive_datagram(&mut self, index: usize, source: SocketAddr, at: Instant) {
        let Some(peer) = self.peers.get_mut(index) else { return };
        if let Some(loss) = &mut peer.upstream_loss
            && Class::of(&self.datagram) == Class::Rtp
            && Loss::loses(loss)
        {
            self.upstream_dropped += 1;
            return;
        }
        let receive = Receive::new(Protocol::Udp, source, self.address, &self.datagram);
        let Ok(receive) = receive else {
            self.datagrams_unknown += 1;
            return;
        };
        self.out.fed_at = at;
        peer.nominating = nominates(&self.datagram).then_some(source);
        if let Err(error) = peer.rtc.handle_input(Input::Receive(at, receive)) {
            self.fail(index, error.to_string());
            return;
        }
        self.drain(index);
        if let Some(peer) = self.peers.get_mut(index) {
            peer.nominating = None;
        }
    }

    /// Takes everything a peer has to send or say.
    pub(crate) fn drain(&mut self, index: usize) {
        loop {
            let Some(peer) = self.peers.get_mut(index) else { return };
            let output = peer.rtc.poll_output();
            if let Err(error) = peer.look_for_keys() {
                self.fail(index, error.to_string());
                return;
            }
            match output {
                Ok(Output::Transmit(mut transmit)) => {
                    self.out.send(peer, &mut transmit);
                    // str0m answers nothing but authentic checks.
                    if is_check(&transmit.contents) {
                        self.learn_address(index, transmit.destination);
                    }
                }
                Ok(Output::Timeout(at)) => {
                    self.schedule(index, at);
                    return;
                }
                Ok(Output::Event(event)) => self.on_event(index, event),
                Err(error) => {
                    self.fail(index, error.to_string());
                    return;
                }
            }
        }
    }

    fn on_event(&mut self, index: usize, event: RtcEvent) {
        match event {
            RtcEvent::RtpPacket(packet) => self.ingest(index, packet),
            RtcEvent::Connected => {
                let Some(peer) = self.peers.get_mut(index) else { return };
                peer.connected = true;
                self.joining -= usize::from(std::mem::take(&mut peer.joining));
                let event = Event::Connected { peer: peer.key };
                self.emit(event);
            }
            RtcEvent::IceConnectionStateChange(IceConnectionState::Disconnected) => {
                self.fail(index, "no connectivity checks for 15 s".to_owned());
            }
            RtcEvent::Closed => {
                let Some(peer) = self.peers.get_mut(index) else { return };
                peer.connected = false;
                let key = peer.key;
                if !std::mem::replace(&mut peer.ended, true) {
                    self.emit(Event::Closed { peer: key });
                }
            }
            RtcEvent::KeyframeRequest(request) => {
                let Some(peer) = self.peers.get_mut(index) else { return };
                let subscription = peer
                    .subscriptions
                    .iter_mut()
                    .map(|(_, subscription)| subscription)
                    .find(|subscription| subscription.mid == Some(request.mid))
                    .filter(|subscription| !subscription.removed);
                let Some(subscription) = subscription else { return };
                subscription.ledger.plis_received += 1;
                let (track_index, layer) = (subscription.track, subscription.layer);
                let Some(track) = self.tracks.get_mut(track_index) else { return };
                want_keyframe(track, layer);
                self.relay_keyframe_requests(track_index);
            }
            RtcEvent::RawPacket(packet) => {
                if let RawPacket::RtcpRx(Rtcp::Nack(nack)) = *packet {
                    self.answer_nack(index, &nack);
                }
            }
            RtcEvent::ChannelOpen(id, label) => {
                let Some(peer) = self.peers.get_mut(index) else { return };
                if peer.channels.len() < PEER_CHANNELS_MAX {
                    peer.channels.push((id, label));
                }
            }
            RtcEvent::ChannelData(data) => {
                let Some(peer) = self.peers.get(index) else { return };
                let label = peer.channels.iter().find(|(id, _)| *id == data.id);
                if let Some((_, label)) = label {
                    if self.backlog.len() >= BACKLOG_EVENTS_MAX {
                        self.messages_dropped += 1;
                        return;
                    }
                    let (peer, channel) = (peer.key, label.clone());
                    self.emit(Event::Data { peer, channel, payload: data.data });
                }
            }
            _ => {}
        }
    }

    /// Tells the signalling thread, once, that a peer is over; it is removed by command.
    pub(crate) fn fail(&mut self, index: usize, reason: String) {
        let Some(peer) = self.peers.get_mut(index) else { return };
        peer.connected = false;
        if !peer.ended {
            peer.ended = true;
            let event = Event::Failed { peer: peer.key, reason };
            self.emit(event);
        }
    }

    /// Whether anybody waits for a handshake.
    pub(crate) fn is_joining(&self) -> bool {
        self.joining > 0 && self.last_join.is_some_and(|at| self.out.now < at + JOINING)
    }

    pub(crate) fn schedule(&mut self, index: usize, at: Instant) {
        let Some(peer) = self.peers.get_mut(index) else { return };
        if peer.ended {
            return;
        }
        let mut at = at.min(self.out.now + PEER_CHECK_INTERVAL);
        if let Some(negotiation) = peer.negotiation.next() {
            at = at.min(negotiation);
        }
        if peer.scheduled.is_none_or(|scheduled| at < scheduled) {
            peer.scheduled = Some(at);
            self.timers.add(at, index, peer.generation);
        }
    }

    pub(crate) fn wake_due_peers(&mut self) {
        while let Some((index, generation)) = self.timers.pop_due(self.out.now) {
            let Some(peer) = self.peers.get_mut(index) else { continue };
            if peer.generation != generation || peer.scheduled.is_some_and(|at| at > self.out.now) {
                continue;
            }
            peer.scheduled = None;
            if peer.negotiation.timed_out(self.out.now) {
                self.fail(index, "the offer was not answered for 15 s".to_owned());
                continue;
            }
            self.negotiate(index);
            self.advance(index);
        }
    }

    /// Makes the offer that is due, if any.
    pub(crate) fn negotiate(&mut self, index: usize) {
        let Some(peer) = self.peers.get_mut(index) else { return };
        let label = peer.label.clone();
        let (event, ended) = peer.negotiate(self.out.now);
        for row in ended {
            self.keep_row(&label, row);
        }
        if let Some(event) = event {
            self.emit(event);
        }
    }

    pub(crate) fn emit(&mut self, event: Event) {
        self.backlog.push_back(event);
        self.flush_events();
    }

    /// The backlog is bounded by what peers can say unasked: a handful of events each, and data
    /// messages up to [`BACKLOG_EVENTS_MAX`].
    fn flush_events(&mut self) {
        while let Some(event) = self.backlog.pop_front() {
            match self.events.try_send(event) {
                Ok(()) => {}
                Err(tokio::sync::mpsc::error::TrySendError::Full(event)) => {
                    self.backlog.push_front(event);
                    return;
                }
                Err(tokio::sync::mpsc::error::TrySendError::Closed(_)) => return,
            }
        }
    }

    /// Whether to stop.
    fn carry_out_commands(&mut self) -> bool {
        let started = Instant::now();
        while started.elapsed() < COMMANDS_TIME_MAX {
            match self.commands.try_recv() {
                Ok(Command::Stop) => return true,
                Ok(command) => self.carry_out(command),
                Err(crossbeam_channel::TryRecvError::Empty) => return false,
                Err(crossbeam_channel::TryRecvError::Disconnected) => return true,
            }
        }
        false
    }
}

impl Outgoing {
    /// Sends one datagram of a peer's str0m.
    fn send(&mut self, peer: &mut Peer, transmit: &mut Transmit) {
        let class = Class::of(&transmit.contents);
        let destination = if is_check(&transmit.contents) {
            transmit.destination
        } else {
            peer.addresses.destination_or(transmit.destination)
        };
        debug_assert!(class != Class::Rtp, "str0m is given no media to send");
        if let (Class::Rtcp, Some(srtp)) = (class, &peer.srtp) {
            let contents = std::mem::replace(&mut transmit.contents, Vec::new().into());
            let edited = egress::report(srtp, &peer.subscriptions, contents.into(), self.fed_at);
            let Some(edited) = edited else {
                tracing::error!(peer = peer.key.0, "an RTCP packet of str0m's is not sent");
                return;
            };
            transmit.contents = edited.into();
        }
        let payload: &[u8] = &transmit.contents;
        let mut copy = |buffer: &mut [u8]| {
            buffer.copy_from_slice(payload);
            true
        };
        let datagram = Datagram { destination, class, len: payload.len(), write: &mut copy };
        self.put(peer.impair.as_deref_mut(), datagram);
    }

    /// Sends a media packet of a subscription like [`put`](Self::put), and before it a broken one
    /// if that is asked for; counts both.
    pub(super) fn put_media(
        &mut self,
        impair: Option<&mut Impairment>,
        subscription: &mut Subscription,
        retransmission: bool,
        mut datagram: Datagram<'_>,
    ) {
        let len = datagram.len;
        let fate = if self.malformer.is_some() {
            let Some(bytes) = self.written(&mut datagram) else { return };
            subscription.ledger.malformed += u64::from(self.spoil(datagram.destination, &bytes));
            let mut copy = |buffer: &mut [u8]| {
                buffer.copy_from_slice(&bytes);
                true
            };
            self.put(impair, Datagram { write: &mut copy, ..datagram })
        } else {
            self.put(impair, datagram)
        };
        subscription.count(fate, self.now, retransmission, len);
    }

    /// Sends a datagram, or drops it or holds it back as asked: the one place where that is
    /// decided. What can't be written is not sent and counts as a send error.
    fn put(&mut self, impair: Option<&mut Impairment>, mut datagram: Datagram<'_>) -> Fate {
        let Some(impair) = impair else {
            self.put_now(&mut datagram);
            return Fate::untouched(self.now);
        };
        let class = datagram.class;
        // Writing a burst to many subscribers takes a while, so a delay counts from when this one's
        // turn has come, not from the start of the round.
        let now = if impair.holds_packets() { Instant::now() } else { self.now };
        let fate = impair.decide(now, class, datagram.len);
        let Fate::Deliver { at, twice, .. } = fate else { return fate };
        let copies = 1 + u8::from(twice);
        if class == Class::Other || !impair.holds_packets() {
            for _ in 0..copies {
                self.put_now(&mut datagram);
            }
            return fate;
        }
        let Some(bytes) = self.written(&mut datagram) else { return fate };
        for copy in 0..copies {
            if !self.held.push(at, (datagram.destination, bytes.clone())) {
                return impair.overflowed(class, now, fate, copy > 0);
            }
        }
        fate
    }

    fn put_now(&mut self, datagram: &mut Datagram<'_>) {
        let Datagram { destination, len, .. } = *datagram;
        self.backend.send_with(self.socket, destination, len, datagram.write);
    }

    /// The bytes of a datagram that isn't written where it will be sent from.
    fn written(&mut self, datagram: &mut Datagram<'_>) -> Option<Box<[u8]>> {
        let mut bytes = vec![0; datagram.len].into_boxed_slice();
        if (datagram.write)(&mut bytes) {
            return Some(bytes);
        }
        // Nothing is sent; it only counts.
        self.backend.send_with(self.socket, datagram.destination, 0, &mut |_| false);
        None
    }

    /// Sends a broken copy of a packet if it is its turn.
    fn spoil(&mut self, destination: SocketAddr, packet: &[u8]) -> bool {
        let broken = self.malformer.as_mut().and_then(|malformer| malformer.spoil(packet));
        let Some(broken) = broken else { return false };
        self.backend.send(self.socket, destination, broken);
        true
    }

    fn release_held(&mut self) {
        while let Some((_, (destination, payload))) = self.held.pop_due(self.now) {
            self.backend.send(self.socket, destination, &payload);
        }
    }
}

/// Whether this is a connectivity check that nominates the pair it is sent on.
fn nominates(datagram: &[u8]) -> bool {
    is_check(datagram) && StunMessage::parse(datagram).is_ok_and(|check| check.use_candidate())
}

/// Whether this is a connectivity check or its answer (RFC 7983 §7).
fn is_check(datagram: &[u8]) -> bool {
    matches!(datagram, [0..=3, ..])
}
