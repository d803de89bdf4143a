//! A media worker without sockets and threads, for the benchmarks: how many instructions its send
//! path takes can only be counted where nothing else happens. And that worker and the rooms for
//! fuzzing, which says to them what no client would. No part of the crate's interface.

#![allow(clippy::unwrap_used, missing_docs, reason = "for benchmarks, which may panic")]

mod hostile;
pub(crate) mod rooms;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use stampede_core::MediaKind;
use stampede_core::crypto::{provider, with_key_slot};
use stampede_core::srtp::KeySlot;
use stampede_impair::{Class, Cohorts};
use stampede_udp::{
    Backend, BackendChoice, BackendLimits, Received, SocketId, UdpStats, Wait, Waker,
};
use str0m::bwe::Bitrate;
use str0m::change::SdpOffer;
use str0m::crypto::CryptoProvider;
use str0m::format::Codec;
use str0m::media::SenderFeedback;
use str0m::net::{Protocol, Receive};
use str0m::rtp::{AbsCaptureTime, Extension, Ssrc};
use str0m::{Candidate, Event as RtcEvent, Input, Output, Rtc};
use tokio::sync::mpsc;

use crate::ledger::SubscriberTrackLedger;
use crate::media::codec::inspect;
use crate::media::connection::{ConnectionConfig, codecs};
use crate::media::events::EventQueue;
use crate::media::factory::PeerFactory;
use crate::media::handle::WorkerHandle;
use crate::media::message::{
    Command, Event, PeerKey, PeerLabel, Role, TrackKey, TrackOffer, Wanted,
};
use crate::media::packet::{Extensions, MediaBatch, MediaPacket};
use crate::media::rewrite::Numbers;
use crate::media::siblings::Siblings;
use crate::media::socket::MediaSocket;
use crate::media::worker::{Worker, WorkerParts};

pub use rooms::Rooms;

const TRACK: TrackKey = TrackKey(1);
/// The publisher is another worker's, which isn't there.
const HOME: usize = 1;
/// Between two estimates of a client's, about as Chrome has it.
const ESTIMATE_INTERVAL: Duration = Duration::from_millis(220);
const ESTIMATE_BPS: u64 = 3_000_000;
/// Rounds of a handshake; it takes a few.
const ROUNDS_MAX: usize = 1_000;
const ROUND: Duration = Duration::from_millis(5);
/// What one send takes, as in `engine/udp/src/send.rs`.
const RUN_PACKETS_MAX: usize = 64;
const RUN_BYTES_MAX: usize = 10_000;
/// The id by which clients know the capture time.
const CAPTURE_TIME_ID: u8 = 9;

thread_local! {
    /// The time by the worker's clock, and by how much it goes on each time it is looked at.
    static TIME: Cell<Option<(Instant, Duration)>> = const { Cell::new(None) };
}

/// The worker's clock.
fn look_at_the_clock() -> Instant {
    let (now, step) = TIME.get().unwrap_or_else(|| (Instant::now(), Duration::ZERO));
    TIME.set(Some((now + step, step)));
    now
}

/// What the worker sent: kept while clients listen, else written over and counted.
#[derive(Default)]
pub(crate) struct Wire {
    listened_to: bool,
    pub(crate) kept: Vec<(SocketAddr, Vec<u8>)>,
    buffer: Vec<u8>,
    stats: UdpStats,
    /// Sends that this was: packets of one length to one place are one, and a shorter one ends it, as
    /// the queue of `stampede_udp` has it.
    runs: u64,
    /// The latest of them.
    run: Option<Run>,
}

#[derive(Clone, Copy)]
struct Run {
    destination: SocketAddr,
    /// Length of its packets but the last.
    segment: usize,
    packets: usize,
    bytes: usize,
    ended: bool,
}

impl Wire {
    /// One whose clients listen.
    pub(crate) fn listened_to() -> Self {
        Self { listened_to: true, ..Self::default() }
    }

    /// A datagram found the receive buffer full.
    pub(crate) fn dropped(&mut self) {
        self.stats.kernel_drops += 1;
    }

    fn count_run(&mut self, destination: SocketAddr, len: usize) {
        let latest = self.run.filter(|run| {
            !run.ended
                && run.destination == destination
                && len <= run.segment
                && run.packets < RUN_PACKETS_MAX
                && run.bytes + len <= RUN_BYTES_MAX
        });
        self.runs += u64::from(latest.is_none());
        let begun = Run { destination, segment: len, packets: 0, bytes: 0, ended: false };
        let run = latest.unwrap_or(begun);
        let (packets, bytes) = (run.packets + 1, run.bytes + len);
        self.run = Some(Run { packets, bytes, ended: len < run.segment, ..run });
    }
}

/// A backend whose network is a [`Wire`], and which receives nothing.
pub(crate) struct Memory {
    pub(crate) wire: Rc<RefCell<Wire>>,
    pub(crate) waker: Waker,
}

impl Backend for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn add_socket(&mut self, _: UdpSocket) -> io::Result<SocketId> {
        Ok(SocketId(0))
    }

    fn remove_socket(&mut self, _: SocketId) {}

    fn ignore_reports(&mut self, _: SocketId) -> io::Result<()> {
        Ok(())
    }

    fn send_with(
        &mut self,
        _: SocketId,
        destination: SocketAddr,
        len: usize,
        write: &mut dyn FnMut(&mut [u8]) -> bool,
    ) {
        let wire = &mut *self.wire.borrow_mut();
        if wire.buffer.len() < len {
            wire.buffer.resize(len, 0);
        }
        if !write(&mut wire.buffer[..len]) {
            wire.stats.send_errors += 1;
            return;
        }
        wire.stats.datagrams_out += 1;
        wire.stats.bytes_out += len as u64;
        wire.count_run(destination, len);
        if wire.listened_to {
            wire.kept.push((destination, wire.buffer[..len].to_vec()));
        }
    }

    fn flush(&mut self) {}

    fn poll(&mut self, _: Wait) -> io::Result<usize> {
        Ok(0)
    }

    fn watch(&mut self, _: OwnedFd) -> io::Result<()> {
        Ok(())
    }

    fn batch(&self) -> &[Received] {
        &[]
    }

    fn payload(&self, _: &Received) -> &[u8] {
        &[]
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn stats(&self) -> UdpStats {
        self.wire.borrow().stats
    }

    fn socket_drops(&mut self, _: SocketId) -> u64 {
        0
    }

    fn refresh_drops(&mut self) {}
}

/// A subscriber's side.
struct Client {
    rtc: Rtc,
    address: SocketAddr,
    connected: bool,
    /// Packets that are still to be lost on the way to it.
    losses: u64,
    /// Packets that it got, each once.
    packets: u64,
    /// Sender reports that it got.
    reports: Vec<SenderFeedback>,
    /// Of the packets that it got.
    ssrc: Ssrc,
    /// Of the last of them.
    last_sequence: u16,
    /// What it was offered.
    offer: String,
    /// Its SRTP keys, once there are any.
    keys: KeySlot,
    /// What it said last, at most [`SAID_MAX`].
    said: VecDeque<Vec<u8>>,
}

/// Datagrams of a client that are kept.
const SAID_MAX: usize = 64;

impl Client {
    fn poll(&mut self) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        loop {
            match self.rtc.poll_output().unwrap() {
                Output::Timeout(_) => return out,
                Output::Transmit(transmit) => {
                    let datagram = transmit.contents.to_vec();
                    self.said.truncate(SAID_MAX - 1);
                    self.said.push_front(datagram.clone());
                    out.push(datagram);
                }
                Output::Event(RtcEvent::Connected) => self.connected = true,
                Output::Event(RtcEvent::RtpPacket(packet)) => {
                    self.packets += 1;
                    self.ssrc = packet.header.ssrc;
                    self.last_sequence = *packet.seq_no as u16;
                }
                Output::Event(RtcEvent::SenderFeedback(report)) => self.reports.push(report),
                Output::Event(_) => {}
            }
        }
    }
}

/// What a worker does for who joins, and these alone: so it can be counted without what clients do.
#[inline(never)]
fn worker_carries_out(worker: &mut Worker, command: Command) {
    worker.carry_out(command);
}

#[inline(never)]
fn worker_takes(worker: &mut Worker, source: SocketAddr, datagram: &[u8]) {
    worker.take_datagram(source, datagram);
}

#[inline(never)]
fn worker_wakes(worker: &mut Worker) {
    worker.wake_due_peers();
}

#[inline(never)]
fn worker_joins(worker: &mut Worker) {
    worker.join(false);
}

fn key(index: u16) -> PeerKey {
    PeerKey(index.into())
}

/// Adds a subscriber of the track.
fn adding(index: u16) -> Command {
    let label = PeerLabel { room: "room".into(), identity: format!("viewer-{index}").into() };
    let track = TrackOffer {
        track: TRACK,
        sid: "TR_1".into(),
        publisher_sid: "PA_1".into(),
        kind: MediaKind::Video,
        home: HOME,
        wanted: Wanted { limit: 2, pictures_per_s: 0, paused: false },
        choice: false,
    };
    let (role, tracks) = (Role::Subscriber, vec![track]);
    Command::AddPeer { peer: key(index), role, label, tracks, allow_pause: false }
}

/// A worker and subscribers of one VP8 track that are connected to it.
pub struct FanOut {
    worker: Worker,
    now: Instant,
    handle: WorkerHandle,
    address: SocketAddr,
    events: mpsc::Receiver<Event>,
    wire: Rc<RefCell<Wire>>,
    crypto: Arc<CryptoProvider>,
    clients: Vec<Client>,
    /// Frames of the publisher's that are still to arrive at the worker.
    coming: VecDeque<MediaBatch>,
    packets: u64,
    /// What clients have told that the worker has not heard yet: when, who, and the datagram.
    told: Vec<(Instant, SocketAddr, Vec<u8>)>,
    /// Estimates that each of them sent.
    estimates: u64,
}

impl FanOut {
    /// Connects so many subscribers, by the real handshake.
    pub fn new(subscribers: u16) -> Self {
        Self::with_crypto(subscribers, provider())
    }

    /// The same, with this crypto on both sides.
    pub fn with_crypto(subscribers: u16, crypto: CryptoProvider) -> Self {
        let now = Instant::now();
        TIME.set(Some((now, Duration::ZERO)));
        let (events_out, events) = mpsc::channel(64);
        // Only for its waker, which nothing else can make.
        let backend = stampede_udp::open(BackendChoice::Mmsg, BackendLimits::default());
        let waker = backend.unwrap().0.waker();
        let address = SocketAddr::from(([127, 0, 0, 1], 9_999));
        let (handle, inbox) = WorkerHandle::new(waker.clone(), address);
        let wire = Rc::new(RefCell::new(Wire::listened_to()));
        let memory = Memory { wire: wire.clone(), waker };
        let config = ConnectionConfig::generate(crypto.clone()).unwrap();
        let cohorts = Cohorts::new(Vec::new(), 1, now);
        let parts = WorkerParts {
            index: 0,
            socket: MediaSocket::new(Box::new(memory), SocketId(0), None),
            inbox,
            events: EventQueue::new(events_out),
            siblings: Siblings::new(Arc::new(OnceLock::new())),
            factory: PeerFactory::new(config, cohorts, 0.0, 1, address),
            withhold_keyframes: false,
            drop_data: (0.0, 0),
        };
        let mut new = Self {
            worker: Worker::new(parts, look_at_the_clock),
            now,
            handle,
            address,
            events,
            wire,
            crypto: Arc::new(crypto),
            clients: Vec::new(),
            coming: VecDeque::new(),
            packets: 0,
            told: Vec::new(),
            estimates: 0,
        };
        new.join(subscribers);
        new
    }

    /// Connects so many more.
    pub fn join(&mut self, subscribers: u16) {
        (0..subscribers).for_each(|_| self.join_one(self.clients.len() as u16));
    }

    fn join_one(&mut self, index: u16) {
        worker_carries_out(&mut self.worker, adding(index));
        let Ok(Event::Offer { id, sdp, .. }) = self.events.try_recv() else {
            panic!("no offer");
        };
        let answer = self.answer(index, id, sdp);
        worker_carries_out(&mut self.worker, answer);
        let mut connected = false;
        for _ in 0..ROUNDS_MAX {
            self.exchange();
            while let Ok(event) = self.events.try_recv() {
                connected |= matches!(event, Event::Connected { peer } if peer == key(index));
            }
            if connected && self.clients[usize::from(index)].connected {
                return;
            }
            self.pass(ROUND);
        }
        panic!("subscriber {index} is not connected after {ROUNDS_MAX} rounds");
    }

    /// The next client answers the offer that it got.
    fn answer(&mut self, index: u16, id: u32, offer: String) -> Command {
        let config = Rtc::builder()
            .set_crypto_provider(self.crypto.clone())
            .set_rtp_mode(true)
            .set_rtcp_report_interval_video(ESTIMATE_INTERVAL)
            .set_extension(CAPTURE_TIME_ID, Extension::AbsoluteCaptureTime);
        let (mut rtc, keys) = with_key_slot(|| config.build(self.now));
        let address = SocketAddr::from(([127, 0, 0, 1], 10_000 + index));
        rtc.add_local_candidate(Candidate::host(address, "udp").unwrap()).unwrap();
        let parsed = SdpOffer::from_sdp_string(&offer).unwrap();
        let sdp = rtc.sdp_api().accept_offer(parsed).unwrap().to_sdp_string();
        self.clients.push(Client {
            rtc,
            keys,
            address,
            connected: false,
            losses: 0,
            packets: 0,
            reports: Vec::new(),
            ssrc: Ssrc::from(0),
            last_sequence: 0,
            offer,
            said: VecDeque::new(),
        });
        Command::Answer { peer: key(index), id, sdp }
    }

    fn pass(&mut self, time: Duration) {
        self.set_now(self.now + time);
    }

    fn set_now(&mut self, now: Instant) {
        self.now = now;
        TIME.set(Some((now, Duration::ZERO)));
        self.worker.begin_turn(now);
    }

    /// Lets everybody have what the others have sent.
    fn exchange(&mut self) {
        let now = self.now;
        self.set_now(now);
        for client in &mut self.clients {
            client.rtc.handle_input(Input::Timeout(now)).unwrap();
            for datagram in client.poll() {
                worker_takes(&mut self.worker, client.address, &datagram);
            }
        }
        worker_wakes(&mut self.worker);
        worker_joins(&mut self.worker);
        let kept = std::mem::take(&mut self.wire.borrow_mut().kept);
        for (destination, bytes) in kept {
            let to = self.clients.iter_mut().find(|client| client.address == destination);
            // A stranger may be answered.
            let Some(client) = to else { continue };
            if client.losses > 0 && Class::of(&bytes) == Class::Rtp {
                client.losses -= 1;
                continue;
            }
            let receive = Receive::new(Protocol::Udp, self.address, destination, &bytes).unwrap();
            client.rtc.handle_input(Input::Receive(now, receive)).unwrap();
            for datagram in client.poll() {
                worker_takes(&mut self.worker, client.address, &datagram);
            }
        }
        worker_joins(&mut self.worker);
    }

    /// A frame of the publisher's, which comes so much later than the one before.
    pub fn publish(&mut self, payloads: &[Arc<[u8]>], frame: u32, later: Duration) {
        let codecs = codecs(Role::Subscriber);
        let mut vp8 = codecs.params().iter().filter(|p| p.spec().codec == Codec::Vp8);
        let params = *vp8.next().unwrap();
        let last = self.coming.back().map(|batch| batch.packets[0].numbers.arrived_at);
        let arrived_at = last.unwrap_or(self.now) + later;
        let mut packets = Vec::with_capacity(payloads.len());
        for (part, payload) in payloads.iter().enumerate() {
            let inspected = inspect(Codec::Vp8, payload);
            // As our publishers do: the first packet of a frame says when it was captured.
            let abs_capture_time = (part == 0).then(|| AbsCaptureTime {
                capture_time: std::time::UNIX_EPOCH + later * frame,
                clock_offset: None,
            });
            self.packets += 1;
            packets.push(MediaPacket {
                layer: 0,
                numbers: Numbers {
                    source: 1,
                    seq: self.packets,
                    timestamp: frame.wrapping_mul(3_333),
                    vp8: inspected.vp8,
                    captured_at_unix_us: None,
                    arrived_at,
                },
                marker: part + 1 == payloads.len(),
                starts_keyframe: inspected.starts_keyframe,
                extensions: Extensions { abs_capture_time, ..Extensions::default() },
                payload: payload.clone(),
                primary_at: None,
                frame: None,
            });
        }
        self.coming.push_back(MediaBatch { track: TRACK, params, packets });
    }

    /// The worker's turn with one frame of those that were published; false if there was none.
    pub fn forward(&mut self) -> bool {
        let Some(batch) = self.coming.pop_front() else { return false };
        self.set_now(batch.packets[0].numbers.arrived_at);
        assert!(self.handle.try_media(batch));
        while self.worker.forward() {}
        true
    }

    /// Lets the clients have what was sent so far, checks that each could open all of it, and
    /// leaves it at that: what is sent from now on is only written and encrypted.
    ///
    /// # Panics
    /// If a client got less than was published.
    pub fn hear(&mut self) {
        self.exchange();
        for client in &self.clients {
            assert_eq!(client.packets, self.packets, "{} got so many", client.address);
            assert!(client.offer.contains(&format!("a=ssrc:{} ", client.ssrc)));
        }
        self.wire.borrow_mut().listened_to = false;
    }

    /// Lets each client send so many estimates, each with a receiver report; [`listen`](Self::listen)
    /// hears them.
    pub fn tell(&mut self, estimates: u64) {
        self.estimates += estimates;
        for _ in 0..estimates {
            self.now += ESTIMATE_INTERVAL;
            for client in &mut self.clients {
                let mut api = client.rtc.direct_api();
                let stream = api.stream_rx(&client.ssrc).unwrap();
                stream.request_remb(Bitrate::from(ESTIMATE_BPS));
                client.rtc.handle_input(Input::Timeout(self.now)).unwrap();
                let datagrams = client.poll().into_iter();
                let rtcp = datagrams.filter(|datagram| Class::of(datagram) == Class::Rtcp);
                let told = rtcp.map(|datagram| (self.now, client.address, datagram));
                self.told.extend(told);
            }
        }
        assert_eq!(self.told.len() as u64, estimates * self.clients.len() as u64);
    }

    /// The worker takes what clients have told, at its time.
    pub fn listen(&mut self) {
        for (now, source, datagram) in self.told.drain(..) {
            self.worker.begin_turn(now);
            self.worker.take_datagram(source, &datagram);
        }
    }

    /// Checks that all that was published went to everybody, and that all that was told was heard.
    ///
    /// # Panics
    /// If it did not.
    pub fn check(&self) {
        let congestion = self.worker.rows().congestion;
        let heard: u64 = congestion.iter().map(|(_, _, row)| row.counted.estimates).sum();
        assert_eq!(heard, self.estimates * self.clients.len() as u64);
        let rows = self.rows();
        assert_eq!(rows.len(), self.clients.len());
        for row in rows {
            assert_eq!(row.counts.packets_sent, self.packets);
        }
        assert_eq!(self.wire.borrow().stats.send_errors, 0);
    }

    /// What was sent to each subscriber.
    fn rows(&self) -> Vec<SubscriberTrackLedger> {
        self.worker.rows().subscribed.into_iter().map(|(_, _, row)| row).collect()
    }
}

#[cfg(test)]
mod tests;
