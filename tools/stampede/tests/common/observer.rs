//! A network between the embedded SFU and its clients that can cut all subscribers off, and knows by
//! its own clock what passed to whom and when: RTP's header is not encrypted.

use std::collections::{HashMap, VecDeque};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use super::relay::{listen, rtp_payload_type};

/// Packets kept of a stream, more than a test's: the oldest are forgotten.
const PACKETS_MAX: usize = 100_000;
/// Opus, as the SFU numbers it; everything else with frames of several packets is video.
const OPUS: u8 = 111;
/// Opus with the packet before (RFC 2198).
const RED: u8 = 63;
/// Intervals before a frame that its nominal length is made of, at most.
const INTERVALS_MAX: usize = 30;
/// The fewest; with fewer a frame is taken to last [`FALLBACK`].
const INTERVALS_MIN: usize = 5;
const FALLBACK: Duration = Duration::from_millis(500);
/// libwebrtc's freeze bound: three average intervals, or one and this.
const BEYOND_AVERAGE: Duration = Duration::from_millis(150);
/// A keyframe is this much larger than the median frame, at least.
const KEYFRAME_FACTOR: usize = 3;

/// A packet that passed on its way down.
#[derive(Debug, Clone, Copy)]
struct Packet {
    at: SystemTime,
    payload_type: u8,
    timestamp: u32,
    marker: bool,
    bytes: usize,
}

impl Packet {
    /// It is a frame by itself.
    fn is_audio(&self) -> bool {
        [OPUS, RED].contains(&self.payload_type)
    }
}

/// Packets of a stream that went on, by SSRC.
type Streams = HashMap<u32, VecDeque<Packet>>;

/// Stands at the address the SFU tells its clients, with the SFU's port.
pub(crate) struct Observer {
    pub(crate) address: SocketAddr,
    streams: Arc<Mutex<Streams>>,
    cut: Arc<AtomicBool>,
}

/// A stretch in which a stream could not be watched.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gap {
    /// The nominal end of the last frame.
    pub(crate) from: SystemTime,
    /// The first frame that can be decoded again.
    pub(crate) to: SystemTime,
}

impl Observer {
    pub(crate) fn start() -> Self {
        let (socket, address) = listen();
        let streams = Arc::new(Mutex::new(Streams::new()));
        let cut = Arc::new(AtomicBool::new(false));
        let (watched, gate) = (Arc::clone(&streams), Arc::clone(&cut));
        std::thread::spawn(move || carry(&socket, &watched, &gate));
        Self { address, streams, cut }
    }

    /// From now on nothing passes to or from whoever sends no media, until told otherwise.
    pub(crate) fn cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::Release);
    }

    /// Where this stream could not be watched, given when it was cut; `None` if it is not known or
    /// went on.
    pub(crate) fn gap(&self, ssrc: u32, cut: SystemTime) -> Option<Gap> {
        let streams = self.streams.lock().unwrap();
        let packets = streams.get(&ssrc)?;
        let audio = packets.front()?.is_audio();
        let frames = frames(packets);
        let after = frames.partition_point(|frame| frame.at < cut);
        let (before, later) = frames.split_at(after);
        let last = before.last()?;
        let mut sizes: Vec<usize> = before.iter().map(|frame| frame.bytes).collect();
        sizes.sort_unstable();
        let keyframe = KEYFRAME_FACTOR * sizes.get(sizes.len() / 2)?;
        let first = later.iter().find(|frame| audio || frame.bytes >= keyframe)?;
        Some(Gap { from: last.at + cover(before), to: first.at })
    }
}

/// How long the last of these frames lasts if no other comes.
fn cover(frames: &[Frame]) -> Duration {
    let first = frames.len().saturating_sub(INTERVALS_MAX + 1);
    let (Some(last), intervals) = (frames.last(), frames.len() - first - 1) else {
        return FALLBACK;
    };
    if intervals < INTERVALS_MIN {
        return FALLBACK;
    }
    let total = last.at.duration_since(frames[first].at).unwrap_or_default();
    let average = total / intervals as u32;
    (3 * average).max(average + BEYOND_AVERAGE)
}

/// A frame that passed to its last packet.
struct Frame {
    at: SystemTime,
    bytes: usize,
}

/// Frames in the order of their packets: those of one timestamp, up to the marker in video. Opus has
/// one packet each.
fn frames(packets: &VecDeque<Packet>) -> Vec<Frame> {
    let mut frames = Vec::new();
    let (mut timestamp, mut bytes) = (None, 0);
    for packet in packets {
        if timestamp != Some(packet.timestamp) {
            (timestamp, bytes) = (Some(packet.timestamp), 0);
        }
        bytes += packet.bytes;
        if packet.marker || packet.is_audio() {
            frames.push(Frame { at: packet.at, bytes });
        }
    }
    frames
}

fn packet(datagram: &[u8]) -> Option<(u32, Packet)> {
    let payload_type = rtp_payload_type(datagram)?;
    let word = |at: usize| Some(u32::from_be_bytes(datagram.get(at..at + 4)?.try_into().ok()?));
    let (timestamp, ssrc) = (word(4)?, word(8)?);
    let (marker, bytes) = (datagram[1] & 0x80 != 0, datagram.len());
    Some((ssrc, Packet { at: SystemTime::now(), payload_type, timestamp, marker, bytes }))
}

/// A client's way: the socket that stands for it, and whether it sends media.
struct Way {
    up: UdpSocket,
    publishes: Arc<AtomicBool>,
}

/// Ends with the test's process.
fn carry(socket: &UdpSocket, streams: &Arc<Mutex<Streams>>, cut: &Arc<AtomicBool>) {
    let sfu = SocketAddr::from(([127, 0, 0, 1], socket.local_addr().unwrap().port()));
    let mut ways: HashMap<SocketAddr, Way> = HashMap::new();
    let mut buffer = [0; 2_048];
    while let Ok((length, client)) = socket.recv_from(&mut buffer) {
        let way = ways.entry(client).or_insert_with(|| {
            let up = UdpSocket::bind("127.0.0.1:0").unwrap();
            let publishes = Arc::new(AtomicBool::new(false));
            let down = Down {
                from: up.try_clone().unwrap(),
                to: socket.try_clone().unwrap(),
                client,
                publishes: Arc::clone(&publishes),
                cut: Arc::clone(cut),
                streams: Arc::clone(streams),
            };
            std::thread::spawn(move || down.carry());
            Way { up, publishes }
        });
        if rtp_payload_type(&buffer[..length]).is_some() {
            way.publishes.store(true, Ordering::Release);
        }
        if !cut.load(Ordering::Acquire) || way.publishes.load(Ordering::Acquire) {
            // A client that outlives the SFU may still talk.
            let _ = way.up.send_to(&buffer[..length], sfu);
        }
    }
}

/// The way down of one client.
struct Down {
    from: UdpSocket,
    to: UdpSocket,
    client: SocketAddr,
    publishes: Arc<AtomicBool>,
    cut: Arc<AtomicBool>,
    streams: Arc<Mutex<Streams>>,
}

impl Down {
    fn carry(&self) -> ! {
        let mut buffer = [0; 2_048];
        loop {
            // An error is a port that is closed by now.
            let Ok((length, _)) = self.from.recv_from(&mut buffer) else { continue };
            if self.cut.load(Ordering::Acquire) && !self.publishes.load(Ordering::Acquire) {
                continue;
            }
            let datagram = &buffer[..length];
            let _ = self.to.send_to(datagram, self.client);
            let Some((ssrc, packet)) = packet(datagram) else { continue };
            let mut streams = self.streams.lock().unwrap();
            let packets = streams.entry(ssrc).or_default();
            if packets.len() >= PACKETS_MAX {
                packets.pop_front();
            }
            packets.push_back(packet);
        }
    }
}
