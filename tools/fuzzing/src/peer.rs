//! A peer and a plain str0m server that is connected to it, in virtual time and without a network: what
//! one sends the other has at once.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use stampede_core::crypto::{provider, with_key_slot};
use stampede_core::srtp::{KeySlot, RtpSealer, SrtcpSealer};
use stampede_core::{
    Arrival, DtlsIdentity, LocalId, PacketCounters, Peer, PeerEvent, PeerOptions, PeerReport,
    PeerSink, PeerUpdate, RecordedFrame, RecordedStream, Scratch,
};
use str0m::channel::ChannelId;
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, Input, Output, Rtc, RtcConfig};

/// Rounds of a handshake; it takes a few.
const ROUNDS_MAX: usize = 400;
const ROUND: Duration = Duration::from_millis(5);
/// Datagrams of the server that are remembered.
const SAID_MAX: usize = 64;

pub(crate) fn peer_address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 40_001))
}

pub(crate) fn server_address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 7_882))
}

pub(crate) fn options() -> PeerOptions {
    static IDENTITY: OnceLock<DtlsIdentity> = OnceLock::new();
    PeerOptions::new(IDENTITY.get_or_init(|| DtlsIdentity::generate().unwrap()).clone())
}

/// What a peer put out.
#[derive(Default)]
pub(crate) struct Sink {
    datagrams: Vec<(SocketAddr, Vec<u8>)>,
    pub(crate) events: Vec<PeerEvent>,
    /// Datagrams so far.
    pub(crate) sent: u64,
    /// Bytes of recorded frames so far.
    pub(crate) recorded_bytes: usize,
}

impl PeerSink for Sink {
    fn transmit(&mut self, _: LocalId, destination: SocketAddr, payload: &[u8]) {
        self.sent += 1;
        self.datagrams.push((destination, payload.to_vec()));
    }

    fn event(&mut self, event: PeerEvent) {
        self.events.push(event);
    }

    fn recorded(&mut self, _: &RecordedStream, frame: RecordedFrame) {
        self.recorded_bytes += frame.data.len();
    }
}

/// Both sides.
pub(crate) struct Pair {
    start: Instant,
    pub(crate) now: Instant,
    pub(crate) peer: Peer,
    pub(crate) server: Rtc,
    keys: KeySlot,
    server_wake: Instant,
    peer_wake: Instant,
    pub(crate) sink: Sink,
    scratch: Scratch,
    /// Data channels that the server sees open.
    pub(crate) channels: Vec<ChannelId>,
    /// What the server said last, the latest first; at most [`SAID_MAX`].
    pub(crate) said: Vec<Vec<u8>>,
    /// Datagrams that the peer was given.
    pub(crate) heard: u64,
}

impl Pair {
    pub(crate) fn new(make: impl FnOnce(Instant) -> Peer, config: RtcConfig) -> Self {
        let now = Instant::now();
        let config = config.set_rtp_mode(true).set_crypto_provider(std::sync::Arc::new(provider()));
        let (mut server, keys) = with_key_slot(|| config.build(now));
        server.add_local_candidate(Candidate::host(server_address(), "udp").unwrap()).unwrap();
        Self {
            start: now,
            now,
            peer: make(now),
            server,
            keys,
            server_wake: now,
            peer_wake: now,
            sink: Sink::default(),
            scratch: Scratch::default(),
            channels: Vec::new(),
            said: Vec::new(),
            heard: 0,
        }
    }

    pub(crate) fn arrival(&self) -> Arrival {
        let since = (self.now - self.start).as_nanos() as u64;
        Arrival { instant: self.now, unix_ns: 1_700_000_000_000_000_000 + since }
    }

    /// The peer is given a datagram from there.
    pub(crate) fn hears(&mut self, source: SocketAddr, datagram: &[u8]) {
        self.heard += 1;
        self.peer.handle_datagram(self.arrival(), source, datagram, &mut self.scratch);
    }

    /// Both have what the other says at this moment.
    pub(crate) fn exchange(&mut self) {
        // What is said leads to more, which ends.
        for _ in 0..100 {
            let mut quiet = true;
            loop {
                match self.server.poll_output() {
                    Ok(Output::Transmit(transmit)) => {
                        let datagram = transmit.contents.to_vec();
                        self.hears(server_address(), &datagram);
                        self.said.truncate(SAID_MAX - 1);
                        self.said.insert(0, datagram);
                        quiet = false;
                    }
                    Ok(Output::Event(Event::ChannelOpen(id, _))) => self.channels.push(id),
                    Ok(Output::Event(_)) => {}
                    Ok(Output::Timeout(at)) => {
                        self.server_wake = at;
                        break;
                    }
                    Err(_) => break,
                }
            }
            self.peer_wake = self.peer.drain(self.now, &mut self.sink);
            for (destination, datagram) in std::mem::take(&mut self.sink.datagrams) {
                if destination == server_address()
                    && let Ok(receive) =
                        Receive::new(Protocol::Udp, peer_address(), destination, &datagram)
                {
                    // The server is one that is told nonsense, too.
                    let _ = self.server.handle_input(Input::Receive(self.now, receive));
                    quiet = false;
                }
            }
            if quiet {
                return;
            }
        }
    }

    /// So much time passes.
    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        self.exchange();
        while self.now < end {
            let wake = self.server_wake.min(self.peer_wake);
            // Whoever wants to be woken at once all the time is not.
            self.now = wake.clamp(self.now + Duration::from_millis(1), end.max(self.now + ROUND));
            self.now = self.now.min(end);
            if self.peer_wake <= self.now {
                self.peer.handle_timeout(self.now);
            }
            let _ = self.server.handle_input(Input::Timeout(self.now));
            self.exchange();
        }
    }

    /// Runs until the peer is connected.
    pub(crate) fn connect(&mut self) {
        for _ in 0..ROUNDS_MAX {
            self.run(ROUND);
            if self.sink.events.contains(&PeerEvent::Connected) && self.keys.get().is_some() {
                return;
            }
        }
        panic!("not connected: {:?}", self.sink.events);
    }

    /// What seals as the server does.
    pub(crate) fn sealers(&self) -> (RtpSealer, SrtcpSealer) {
        let keys = self.keys.get().unwrap();
        (keys.rtp_sealer().unwrap(), keys.srtcp_sealer().unwrap())
    }

    /// Everybody has left, what waited is decided, and the books balance.
    pub(crate) fn finish(mut self) -> PeerReport {
        self.peer.update(PeerUpdate::Leaving);
        self.run(Duration::from_secs(3));
        let transport = self.peer.counters().transport;
        assert_eq!(transport.datagrams.received, self.heard, "each datagram is counted");
        self.peer.close(self.now, &mut self.sink);
        let report = self.peer.final_report(self.now);
        for stream in &report.streams {
            balance(&stream.packets);
            let frames = stream.frames;
            assert!(frames.complete <= frames.received, "{frames:?}");
            assert!(frames.keyframes <= frames.complete, "{frames:?}");
            assert!(frames.decodable.is_none_or(|it| it <= frames.complete), "{frames:?}");
        }
        report
    }
}

/// What docs/measurement.md promises of packets.
pub(crate) fn balance(packets: &PacketCounters) {
    let PacketCounters { expected, received, missing, repaired, repaired_by_red, .. } = *packets;
    let PacketCounters { late, unrecovered, pending, reordered, rtx_repairs, .. } = *packets;
    assert_eq!(pending, 0, "{packets:?}");
    assert_eq!(missing, repaired + repaired_by_red + unrecovered, "{packets:?}");
    assert!(late <= unrecovered, "{packets:?}");
    assert_eq!(expected + repaired + late, received + missing, "{packets:?}");
    assert!(reordered + rtx_repairs <= repaired + late, "{packets:?}");
}
