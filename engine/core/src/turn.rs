//! TURN (RFC 8656): an allocation on a server that relays for a peer.
//!
//! The protocol is turn-client-proto's. Two things are done beside it. What comes and goes through
//! channels, which is all media, is wrapped and unwrapped here by its four bytes, without a look at
//! the client's state. And what a server refuses is read here, for the client does not tell it.
//! Whoever has the socket or the stream hands over whole messages, so that over TCP and TLS the
//! client is the same; it only repeats nothing there (RFC 8489 §6.2.2).

use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use turn_client_proto::api::{Transmit, TurnConfig, TurnEvent, TurnPollRet, TurnRecvRet};
use turn_client_proto::prelude::TurnClientApi;
use turn_client_proto::stun::Instant as ClientInstant;
use turn_client_proto::types::message::ALLOCATE;
use turn_client_proto::types::stun::TransportType;
use turn_client_proto::types::stun::attribute::ErrorCode;
use turn_client_proto::types::stun::message::{Message, MessageClass};
use turn_client_proto::types::{AddressFamily, TurnCredentials};
use turn_client_proto::udp::TurnClientUdp;

use crate::PathKind;

/// Longest user name of a TURN server that is used (RFC 8489 §14.3), and longest password.
pub const TURN_CREDENTIAL_BYTES_MAX: usize = 508;
/// Most candidates of the media server to which an allocation has channels.
const CHANNELS_MAX: usize = 32;
/// Most datagrams that wait for their channels; checks are repeated, so that further ones are no loss.
const HELD_DATAGRAMS_MAX: usize = 32;
/// Outputs taken from the client at a time; a bound against an endless loop, far above need.
const OUTPUTS_MAX: usize = 64;
/// When a client that has said nothing useful is asked again.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(50);
/// Over TCP a request is given up after so long: as over UDP with all its repetitions (RFC 8489 §6.2.2).
const ANSWERED_WITHIN: Duration = Duration::from_millis(39_500);
/// Most characters kept of what a server says of why it refuses.
const REASON_CHARS_MAX: usize = 80;
/// Bytes in front of what a channel carries (RFC 8656 §12.4).
const CHANNEL_HEADER_BYTES: usize = 4;

/// A TURN server that signalling named.
#[derive(Clone, PartialEq, Eq)]
pub struct TurnServer {
    /// How it is reached: one of [`PathKind::RELAYED`].
    pub by: PathKind,
    /// Its name or address, as it was named.
    pub host: Box<str>,
    /// Where it is; `None` if its name has no address.
    pub address: Option<SocketAddr>,
    /// User name, of [`TURN_CREDENTIAL_BYTES_MAX`] at most.
    pub username: Box<str>,
    /// Password.
    pub credential: Box<str>,
}

impl TurnServer {
    /// Whether an allocation can be asked of it.
    pub(crate) fn is_usable(&self) -> bool {
        let fits = |text: &str| !text.is_empty() && text.len() <= TURN_CREDENTIAL_BYTES_MAX;
        self.by.is_relayed()
            && fits(&self.username)
            && self.credential.len() <= TURN_CREDENTIAL_BYTES_MAX
    }
}

/// Without its credentials.
impl fmt::Debug for TurnServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TurnServer({self})")
    }
}

/// As failures name it: `turn.example.com:443 (TLS)`.
impl fmt::Display for TurnServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = match self.by {
            PathKind::TurnTls => "TLS",
            PathKind::TurnTcp => "TCP",
            _ => "UDP",
        };
        match self.address {
            Some(address) if address.ip().to_string() == *self.host => {
                write!(f, "{address} ({by})")
            }
            Some(address) => write!(f, "{}:{} ({by})", self.host, address.port()),
            None => write!(f, "{} ({by})", self.host),
        }
    }
}

/// What a message of the server's was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FromServer {
    /// A datagram that it relays: where it came from, and where it lies in the message.
    Relayed(SocketAddr, Range<usize>),
    /// Something between it and the client, which [`Allocation::poll`] is to be asked about.
    Control,
    /// Nothing that can be used.
    Nothing,
}

/// What became of an allocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AllocationEvent {
    /// It is there: what comes to this address is relayed.
    Allocated(SocketAddr),
    /// There is no way to this address: why.
    NoChannel(SocketAddr, String),
    /// It is over, or never was: why.
    Over(String),
}

/// A channel to a candidate of the media server.
#[derive(Debug, Clone, Copy)]
struct Channel {
    number: u16,
    to: SocketAddr,
}

/// One allocation, from the first request on.
pub(crate) struct Allocation {
    client: TurnClientUdp,
    local: SocketAddr,
    server: SocketAddr,
    /// Where the client's time begins.
    epoch: Instant,
    /// Transaction of the latest request for an allocation.
    asked: [u8; 12],
    /// It was told to authenticate itself, as everybody is.
    challenged: bool,
    allocated: bool,
    /// The latest error of the server's, in words.
    refusal: Option<String>,
    /// It can come to nothing any more: why.
    over: Option<String>,
    channels: Vec<Channel>,
    /// Where channels were asked for.
    wanted: Vec<SocketAddr>,
    held: Vec<(SocketAddr, Vec<u8>)>,
}

impl fmt::Debug for Allocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Allocation").field("server", &self.server).finish_non_exhaustive()
    }
}

impl Allocation {
    /// Begins to ask for one, from a socket bound to `local`, or a stream that ends there.
    pub(crate) fn new(
        now: Instant,
        local: SocketAddr,
        server: SocketAddr,
        named: &TurnServer,
    ) -> Self {
        let mut config = TurnConfig::new(TurnCredentials::new(&named.username, &named.credential));
        if server.is_ipv6() {
            config.set_address_family(AddressFamily::IPV6);
        }
        if named.by != PathKind::TurnUdp {
            config.set_request_retransmits(ANSWERED_WITHIN, ANSWERED_WITHIN, 1, ANSWERED_WITHIN);
        }
        Self {
            client: TurnClientUdp::allocate(local, server, config),
            local,
            server,
            epoch: now,
            asked: [0; 12],
            challenged: false,
            allocated: false,
            refusal: None,
            over: None,
            channels: Vec::new(),
            wanted: Vec::new(),
            held: Vec::new(),
        }
    }

    fn at(&self, now: Instant) -> ClientInstant {
        let since = now.saturating_duration_since(self.epoch);
        ClientInstant::from_nanos(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
    }

    /// Takes a message of the server's.
    pub(crate) fn receive(&mut self, now: Instant, message: &[u8]) -> FromServer {
        match *message {
            [64..80, second, high, low, ..] => {
                let number = u16::from_be_bytes([message[0], second]);
                let end = CHANNEL_HEADER_BYTES + usize::from(u16::from_be_bytes([high, low]));
                let channel = self.channels.iter().find(|channel| channel.number == number);
                match channel.filter(|_| end <= message.len()) {
                    Some(channel) => FromServer::Relayed(channel.to, CHANNEL_HEADER_BYTES..end),
                    None => FromServer::Nothing,
                }
            }
            [0..4, ..] => self.control(now, message),
            _ => FromServer::Nothing,
        }
    }

    fn control(&mut self, now: Instant, bytes: &[u8]) -> FromServer {
        let at = self.at(now);
        let transmit = Transmit::new(bytes, TransportType::Udp, self.server, self.local);
        let refused = self.refused_by(bytes);
        match self.client.recv(transmit, at) {
            TurnRecvRet::PeerData(data) => match within(bytes, data.data()) {
                Some(range) => FromServer::Relayed(data.peer, range),
                None => FromServer::Nothing,
            },
            TurnRecvRet::Handled | TurnRecvRet::PeerIcmp { .. } => FromServer::Control,
            // The client goes by errors with a MESSAGE-INTEGRITY alone, which some can't have
            // (RFC 8489 §9.2.4), and those of pion's server never have.
            TurnRecvRet::Ignored(_) if refused && !self.allocated => {
                self.over = self.refusal.clone();
                FromServer::Control
            }
            TurnRecvRet::Ignored(_) => FromServer::Nothing,
        }
    }

    /// Takes note of an error of the server's; true if it answers our request for an allocation,
    /// and not with a question for who we are.
    fn refused_by(&mut self, bytes: &[u8]) -> bool {
        let Ok(message) = Message::from_bytes(bytes) else { return false };
        if message.class() != MessageClass::Error {
            return false;
        }
        let Ok(error) = message.attribute::<ErrorCode>() else { return false };
        let is_ours = bytes.get(8..20) == Some(&self.asked[..]);
        let asks = match error.code() {
            401 => !std::mem::replace(&mut self.challenged, true),
            438 => true,
            _ => false,
        };
        if asks {
            return false;
        }
        let reason = error.reason().chars().filter(|c| !c.is_control()).take(REASON_CHARS_MAX);
        let reason: String = reason.collect();
        self.refusal = Some(format!("{} {reason}", error.code()).trim_end().to_owned());
        message.method() == ALLOCATE && is_ours
    }

    /// Whether [`Self::wrap`] finds a way to there.
    pub(crate) fn reaches(&self, to: SocketAddr) -> bool {
        self.channels.iter().any(|channel| channel.to == to)
    }

    /// Writes a datagram for this address as the server takes it; false if no channel leads there.
    pub(crate) fn wrap(&self, to: SocketAddr, datagram: &[u8], out: &mut Vec<u8>) -> bool {
        let channel = self.channels.iter().find(|channel| channel.to == to);
        let (Some(channel), Ok(len)) = (channel, u16::try_from(datagram.len())) else {
            return false;
        };
        out.clear();
        out.extend_from_slice(&channel.number.to_be_bytes());
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(datagram);
        true
    }

    /// Asks for a channel to this address, and keeps the datagram until it is there. False if it
    /// finds no room.
    pub(crate) fn hold(&mut self, now: Instant, to: SocketAddr, datagram: Vec<u8>) -> bool {
        if !self.wanted.contains(&to) {
            if self.wanted.len() >= CHANNELS_MAX {
                return false;
            }
            let at = self.at(now);
            // What is refused is told by what this returns, or by an event.
            if self.client.bind_channel(TransportType::Udp, to, at).is_err() {
                return false;
            }
            self.wanted.push(to);
        }
        if self.held.len() >= HELD_DATAGRAMS_MAX {
            return false;
        }
        self.held.push((to, datagram));
        true
    }

    /// What there is to send to the server, and what has happened; when to ask again.
    pub(crate) fn poll(
        &mut self,
        now: Instant,
        send: &mut impl FnMut(Vec<u8>),
        happened: &mut impl FnMut(AllocationEvent),
    ) -> Option<Instant> {
        for _ in 0..OUTPUTS_MAX {
            if let Some(why) = self.over.take() {
                let refused = format!("refused the allocation: {why}");
                return self.ended(refused, happened);
            }
            self.send_requests(self.at(now), send);
            if let Some(event) = self.client.poll_event() {
                self.event(now, event, send, happened);
                continue;
            }
            let at = self.at(now);
            match self.client.poll(at) {
                TurnPollRet::WaitUntil(due) if due <= at => {}
                TurnPollRet::WaitUntil(due) => return Some(now + due.duration_since(at)),
                TurnPollRet::Closed => {
                    let why = match (self.allocated, self.refusal.take()) {
                        (false, Some(why)) => format!("refused the allocation: {why}"),
                        (false, None) => "did not answer".to_owned(),
                        (true, Some(why)) => format!("ended the allocation: {why}"),
                        (true, None) => "let the allocation expire".to_owned(),
                    };
                    return self.ended(why, happened);
                }
                // Of allocations for TCP, which are none of ours.
                TurnPollRet::AllocateTcpSocket { .. } | TurnPollRet::TcpClose { .. } => {}
            }
        }
        Some(now + ASK_AGAIN_AFTER)
    }

    fn ended(
        &mut self,
        why: String,
        happened: &mut impl FnMut(AllocationEvent),
    ) -> Option<Instant> {
        happened(AllocationEvent::Over(why));
        None
    }

    fn send_requests(&mut self, at: ClientInstant, send: &mut impl FnMut(Vec<u8>)) {
        while let Some(transmit) = self.client.poll_transmit(at) {
            // A request for an allocation (RFC 8656 §17.1).
            if let (Some([0, 3]), Some(id)) = (transmit.data.get(..2), transmit.data.get(8..20)) {
                self.asked.copy_from_slice(id);
            }
            send(transmit.data.to_vec());
        }
    }

    fn event(
        &mut self,
        now: Instant,
        event: TurnEvent,
        send: &mut impl FnMut(Vec<u8>),
        happened: &mut impl FnMut(AllocationEvent),
    ) {
        match event {
            TurnEvent::AllocationCreated(_, relayed) => {
                self.allocated = true;
                happened(AllocationEvent::Allocated(relayed));
            }
            TurnEvent::ChannelCreated(_, to) => {
                let Some(number) = self.number_of(now, to) else { return };
                self.channels.push(Channel { number, to });
                let (released, held): (Vec<_>, Vec<_>) =
                    std::mem::take(&mut self.held).into_iter().partition(|held| held.0 == to);
                self.held = held;
                for (to, datagram) in released {
                    let mut wrapped = Vec::new();
                    if self.wrap(to, &datagram, &mut wrapped) {
                        send(wrapped);
                    }
                }
            }
            TurnEvent::ChannelCreateFailed(_, to) => {
                let before = self.channels.len();
                self.channels.retain(|channel| channel.to != to);
                self.held.retain(|held| held.0 != to);
                // One that was refused is not asked for again.
                if self.channels.len() < before {
                    self.wanted.retain(|wanted| *wanted != to);
                }
                let why = match self.refusal.take() {
                    Some(why) => format!("refused to relay to {to}: {why}"),
                    None => format!("did not answer to a request to relay to {to}"),
                };
                happened(AllocationEvent::NoChannel(to, why));
            }
            // Its own state says so too.
            TurnEvent::AllocationCreateFailed(_)
            | TurnEvent::PermissionCreated(..)
            | TurnEvent::PermissionCreateFailed(..)
            | TurnEvent::TcpConnected(_)
            | TurnEvent::TcpConnectFailed(_) => {}
        }
    }

    /// The client does not tell a channel's number, but writes it in front of what is to be sent.
    fn number_of(&mut self, now: Instant, to: SocketAddr) -> Option<u16> {
        let at = self.at(now);
        let nothing = self.client.send_to(TransportType::Udp, to, [0_u8; 0], at).ok()??;
        match nothing.build().data[..] {
            [first @ 64..80, second, 0, 0] => Some(u16::from_be_bytes([first, second])),
            _ => None,
        }
    }

    /// Gives the allocation back (RFC 8656 §8.1); nobody waits for the answer.
    pub(crate) fn end(&mut self, now: Instant, send: &mut impl FnMut(Vec<u8>)) {
        if !self.allocated || self.client.delete(self.at(now)).is_err() {
            return;
        }
        // Time may jump, for nothing comes after: the client keeps its requests apart. Of what else
        // it still had to say nothing matters any more.
        for ahead in 1..=OUTPUTS_MAX as u32 {
            let at = self.at(now + ASK_AGAIN_AFTER * ahead);
            match self.client.poll_transmit(at) {
                // A refresh (RFC 8656 §17.1).
                Some(refresh) if refresh.data.starts_with(&[0, 4]) => {
                    return send(refresh.data.to_vec());
                }
                _ => {}
            }
        }
    }
}

/// Where a part of these bytes lies in them.
fn within(whole: &[u8], part: &[u8]) -> Option<Range<usize>> {
    let at = (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
    let end = at.checked_add(part.len())?;
    (end <= whole.len()).then_some(at..end)
}
