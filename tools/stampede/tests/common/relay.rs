//! A network between the embedded SFU and its clients, in which a test decides what arrives.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// Decides what becomes of each datagram of the SFU to one client; true lets it through.
pub(crate) type Fate = Box<dyn FnMut(&[u8]) -> bool + Send>;

/// Stands at the address the SFU tells its clients, with the SFU's port.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
}

impl Relay {
    /// `fate` is asked once for each client.
    pub(crate) fn start(fate: impl Fn() -> Fate + Send + 'static) -> Self {
        let (socket, address) = listen();
        std::thread::spawn(move || {
            let down = |from: UdpSocket, to: UdpSocket, client| {
                let mut fate = fate();
                std::thread::spawn(move || relay_down(&from, &to, client, &mut fate));
            };
            carry(&socket, |_| {}, down);
        });
        Self { address }
    }

    /// Holds all that goes to every second client after the first two, in the order in which they
    /// appear, for `delay`, and carries everything else at once. What it did comes with it.
    pub(crate) fn holding(delay: Duration) -> (Self, Arc<Mutex<Holds>>) {
        let (socket, address) = listen();
        let holds = Arc::new(Mutex::new(Holds::default()));
        let waiting = Arc::new((Mutex::new(VecDeque::new()), Condvar::new()));
        let (own, queue) = (Arc::clone(&holds), Arc::clone(&waiting));
        std::thread::spawn(move || release(&queue, delay, &own));
        let own = Arc::clone(&holds);
        let mut clients = 0;
        std::thread::spawn(move || {
            let watched = Arc::clone(&own);
            let down = |from: UdpSocket, to: UdpSocket, client| {
                // Clients 0 and 1, then 2 which is held, 3, 4 which is, …
                let held = clients >= 2 && clients % 2 == 0;
                clients += 1;
                let (waiting, own) = (Arc::clone(&waiting), Arc::clone(&own));
                std::thread::spawn(move || {
                    let mut buffer = [0; 2_048];
                    loop {
                        let Ok((length, _)) = from.recv_from(&mut buffer) else { continue };
                        let arrived = Instant::now();
                        let bytes = &buffer[..length];
                        if held {
                            let to = to.try_clone().unwrap();
                            let packet = Waiting { arrived, bytes: bytes.into(), to, client };
                            waiting.0.lock().unwrap().push_back(packet);
                            waiting.1.notify_one();
                        } else {
                            let _ = to.send_to(bytes, client);
                            // The clock is read before the lock is waited for.
                            let passed = (arrived, Instant::now());
                            own.lock().unwrap().carried_down(0, bytes, passed);
                        }
                    }
                });
            };
            let up = |bytes: &[u8]| {
                let now = Instant::now();
                watched.lock().unwrap().carried_up(bytes, now);
            };
            carry(&socket, up, down);
        });
        (Self { address }, holds)
    }
}

/// What a relay saw that holds packets, by its own clock. Of each pair, index 0 is of clients that get
/// theirs at once, 1 of the others.
#[derive(Debug, Default)]
pub(crate) struct Holds {
    /// Of each SSRC on its way up its bytes, and when the last packet of each picture passed.
    up: HashMap<u32, (usize, Vec<Instant>)>,
    /// Last packets of pictures on their way down: when they came, and when they went on.
    down: [Vec<(Instant, Instant)>; 2],
    /// The SSRCs of what it carried down.
    pub(crate) ssrcs: [HashSet<u32>; 2],
}

impl Holds {
    fn carried_up(&mut self, datagram: &[u8], at: Instant) {
        let Some(ssrc) = rtp_ssrc(datagram) else { return };
        let (bytes, pictures) = self.up.entry(ssrc).or_default();
        *bytes += datagram.len();
        if ends_picture(datagram) {
            pictures.push(at);
        }
    }

    fn carried_down(&mut self, side: usize, datagram: &[u8], passed: (Instant, Instant)) {
        let Some(ssrc) = rtp_ssrc(datagram) else { return };
        self.ssrcs[side].insert(ssrc);
        if ends_picture(datagram) {
            self.down[side].push(passed);
        }
    }

    /// Counts anew.
    pub(crate) fn begin(&mut self) {
        self.up.clear();
        self.down = Default::default();
    }

    /// How long each picture took from where its last packet passed on its way up to where the relay
    /// sent it on to a client, in milliseconds and in order of size. Everybody is to watch the
    /// smallest layer. What came down is the latest picture that went up before it: a server must
    /// take less time than there is between two pictures.
    pub(crate) fn took_ms(&self) -> [Vec<f64>; 2] {
        // An SSRC of retransmissions has hardly any.
        let most = self.up.values().map(|(_, pictures)| pictures.len()).max().unwrap_or(0);
        let layers = self.up.values().filter(|(_, pictures)| 2 * pictures.len() > most);
        let (_, up) = layers.min_by_key(|(bytes, _)| *bytes).expect("a publisher");
        [0, 1].map(|side| {
            let picture = |(arrived, sent): &(Instant, Instant)| {
                let before = up.partition_point(|at| at <= arrived).checked_sub(1)?;
                Some((*sent - up[before]).as_secs_f64() * 1_000.0)
            };
            let mut took: Vec<f64> = self.down[side].iter().filter_map(picture).collect();
            took.sort_unstable_by(f64::total_cmp);
            took
        })
    }
}

/// The SSRC, if this is RTP.
fn rtp_ssrc(datagram: &[u8]) -> Option<u32> {
    rtp_payload_type(datagram)?;
    Some(u32::from_be_bytes(datagram.get(8..12)?.try_into().unwrap()))
}

/// The marker: the last packet of a picture (RFC 7741 §4.1).
fn ends_picture(rtp: &[u8]) -> bool {
    rtp[1] & 0x80 != 0
}

/// A datagram that is not to go yet.
struct Waiting {
    arrived: Instant,
    bytes: Box<[u8]>,
    to: UdpSocket,
    client: SocketAddr,
}

/// Sends each when it has been here for `delay`: all wait equally long, so they leave in order.
fn release(
    waiting: &(Mutex<VecDeque<Waiting>>, Condvar),
    delay: Duration,
    holds: &Mutex<Holds>,
) -> ! {
    loop {
        let queue = waiting.0.lock().unwrap();
        let mut queue = waiting.1.wait_while(queue, |queue| queue.is_empty()).unwrap();
        let Some(packet) = queue.pop_front() else { continue };
        drop(queue);
        std::thread::sleep((packet.arrived + delay).saturating_duration_since(Instant::now()));
        let _ = packet.to.send_to(&packet.bytes, packet.client);
        let passed = (packet.arrived, Instant::now());
        holds.lock().unwrap().carried_down(1, &packet.bytes, passed);
    }
}

/// A port that is free at the relay's address and at the SFU's; the SFU takes its own once it starts.
pub(crate) fn listen() -> (UdpSocket, SocketAddr) {
    (0..50)
        .find_map(|_| {
            let port = UdpSocket::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port();
            let address = SocketAddr::from(([127, 0, 0, 3], port));
            Some((UdpSocket::bind(address).ok()?, address))
        })
        .expect("a free port")
}

/// Carries everything up, past `look`; `down` is to start the way down of each client that appears:
/// from, to, whom.
fn carry(
    socket: &UdpSocket,
    look: impl Fn(&[u8]),
    mut down: impl FnMut(UdpSocket, UdpSocket, SocketAddr),
) {
    let sfu = SocketAddr::from(([127, 0, 0, 1], socket.local_addr().unwrap().port()));
    let mut ways: HashMap<SocketAddr, UdpSocket> = HashMap::new();
    let mut buffer = [0; 2_048];
    // Ends with the test's process.
    while let Ok((length, client)) = socket.recv_from(&mut buffer) {
        let way = ways.entry(client).or_insert_with(|| {
            let up = UdpSocket::bind("127.0.0.1:0").unwrap();
            down(up.try_clone().unwrap(), socket.try_clone().unwrap(), client);
            up
        });
        look(&buffer[..length]);
        // A client that outlives the SFU may still talk.
        let _ = way.send_to(&buffer[..length], sfu);
    }
}

fn relay_down(from: &UdpSocket, to: &UdpSocket, client: SocketAddr, fate: &mut Fate) {
    let mut buffer = [0; 2_048];
    loop {
        // An error is a port that is closed by now.
        let Ok((length, _)) = from.recv_from(&mut buffer) else { continue };
        if fate(&buffer[..length]) {
            let _ = to.send_to(&buffer[..length], client);
        }
    }
}

/// The payload type, if this is RTP (RFC 7983 §7, RFC 5761 §4).
pub(crate) fn rtp_payload_type(datagram: &[u8]) -> Option<u8> {
    match datagram {
        [128..=191, second, ..] if !(192..=223).contains(second) => Some(second & 0x7f),
        _ => None,
    }
}
