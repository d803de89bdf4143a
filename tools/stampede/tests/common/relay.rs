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
            carry(&socket, |from, to, client| {
                let mut fate = fate();
                std::thread::spawn(move || relay_down(&from, &to, client, &mut fate));
            });
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
            carry(&socket, |from, to, client| {
                // Clients 0 and 1, then 2 which is held, 3, 4 which is, …
                let held = clients >= 2 && clients % 2 == 0;
                clients += 1;
                let (waiting, own) = (Arc::clone(&waiting), Arc::clone(&own));
                std::thread::spawn(move || {
                    loop {
                        let mut buffer = [0; 2_048];
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
                            own.lock().unwrap().note(0, bytes, arrived.elapsed());
                        }
                    }
                });
            });
        });
        (Self { address }, holds)
    }
}

/// What a relay did that holds packets: index 0 is of clients that get theirs at once, 1 of others.
#[derive(Debug, Default)]
pub(crate) struct Holds {
    /// How long each RTP datagram was really here, by the relay's own clock.
    pub(crate) held: [Vec<Duration>; 2],
    /// The SSRCs of what it carried.
    pub(crate) ssrcs: [HashSet<u32>; 2],
}

impl Holds {
    fn note(&mut self, held: usize, datagram: &[u8], here: Duration) {
        if rtp_payload_type(datagram).is_some() && datagram.len() >= 12 {
            self.held[held].push(here);
            let ssrc = u32::from_be_bytes(datagram[8..12].try_into().unwrap());
            self.ssrcs[held].insert(ssrc);
        }
    }

    /// In milliseconds, of clients held (1) or not (0).
    pub(crate) fn quantile_ms(&self, held: usize, quantile: f64) -> f64 {
        let mut all = self.held[held].clone();
        all.sort_unstable();
        let place = ((all.len() - 1) as f64 * quantile).round() as usize;
        all[place].as_secs_f64() * 1_000.0
    }
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
        let here = packet.arrived.elapsed();
        holds.lock().unwrap().note(1, &packet.bytes, here);
    }
}

/// A port that is free at the relay's address and at the SFU's; the SFU takes its own once it starts.
fn listen() -> (UdpSocket, SocketAddr) {
    (0..50)
        .find_map(|_| {
            let port = UdpSocket::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port();
            let address = SocketAddr::from(([127, 0, 0, 3], port));
            Some((UdpSocket::bind(address).ok()?, address))
        })
        .expect("a free port")
}

/// Carries everything up; `down` is to start the way down of each client that appears: from, to, whom.
fn carry(socket: &UdpSocket, mut down: impl FnMut(UdpSocket, UdpSocket, SocketAddr)) {
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
