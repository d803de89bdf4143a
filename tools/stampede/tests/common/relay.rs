//! A network between the embedded SFU and its clients, in which a test decides what arrives.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};

/// Decides what becomes of each datagram of the SFU to one client; true lets it through.
pub(crate) type Fate = Box<dyn FnMut(&[u8]) -> bool + Send>;

/// Stands at the address the SFU tells its clients, with the SFU's port.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
}

impl Relay {
    /// `fate` is asked once for each client.
    pub(crate) fn start(fate: impl Fn() -> Fate + Send + 'static) -> Self {
        // A port that is free at both addresses; the SFU takes its own once it starts.
        let (socket, address) = (0..50)
            .find_map(|_| {
                let port = UdpSocket::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port();
                let address = SocketAddr::from(([127, 0, 0, 3], port));
                Some((UdpSocket::bind(address).ok()?, address))
            })
            .expect("a free port");
        let sfu = SocketAddr::from(([127, 0, 0, 1], address.port()));
        std::thread::spawn(move || {
            let mut ways: HashMap<SocketAddr, UdpSocket> = HashMap::new();
            let mut buffer = [0; 2_048];
            // Ends with the test's process.
            while let Ok((length, client)) = socket.recv_from(&mut buffer) {
                let way = ways.entry(client).or_insert_with(|| {
                    let up = UdpSocket::bind("127.0.0.1:0").unwrap();
                    let down = (up.try_clone().unwrap(), socket.try_clone().unwrap());
                    let mut fate = fate();
                    std::thread::spawn(move || relay_down(&down.0, &down.1, client, &mut fate));
                    up
                });
                // A client that outlives the SFU may still talk.
                let _ = way.send_to(&buffer[..length], sfu);
            }
        });
        Self { address }
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
