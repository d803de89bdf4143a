//! TURN (RFC 8656): an allocation on a server that relays for a peer.
//!
//! The protocol is turn-client-proto's. Two things are done beside it. What comes and goes through
//! channels, which is all media, is wrapped and unwrapped here by its four bytes, without a look at
//! the client's state. And what a server refuses is read here, for the client does not tell it.
//! Whoever has the socket or the stream hands over whole messages, so that over TCP and TLS the
//! client is the same; it only repeats nothing there (RFC 8489 §6.2.2).

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use turn_client_proto::api::{Transmit, TurnConfig, TurnEvent, TurnPollRet, TurnRecvRet};
use turn_client_proto::prelude::TurnClientApi;
use turn_client_proto::stun::Instant as ClientInstant;
use turn_client_proto::types::attribute::{ChannelNumber, XorPeerAddress};
use turn_client_proto::types::message::{ALLOCATE, CHANNEL_BIND};
use turn_client_proto::types::stun::TransportType;
use turn_client_proto::types::stun::attribute::ErrorCode;
use turn_client_proto::types::stun::message::{Message, MessageClass, Method, TransactionId};
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
    /// The same, and neither STUN nor of a channel.
    Malformed,
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

/// A channel that was asked for.
#[derive(Debug, Clone, Copy)]
struct Bind {
    id: TransactionId,
    channel: Channel,
    answer: BindAnswer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BindAnswer {
    None,
    Bound,
    /// Without a signature, so that the client does not know it.
    Refused,
}

/// One allocation, from the first request on.
pub(crate) struct Allocation {
    client: TurnClientUdp,
    local: SocketAddr,
    server: SocketAddr,
    /// Where the client's time begins.
    epoch: Instant,
    /// Transaction of the latest request for an allocation.
    asked: Option<TransactionId>,
    /// It was told to authenticate itself, as everybody is.
    challenged: bool,
    allocated: bool,
    /// The latest error of the server's, in words.
    refusal: Option<String>,
    /// It can come to nothing any more: why.
    over: Option<String>,
    channels: Vec<Channel>,
    /// The latest requests for channels, [`CHANNELS_MAX`] at most: the client tells neither a channel's
    /// number nor a refusal that is not signed.
    binds: VecDeque<Bind>,
    /// What such a refusal has come to, and is to be told.
    denied: Vec<(SocketAddr, String)>,
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
            asked: None,
            challenged: false,
            allocated: false,
            refusal: None,
            over: None,
            channels: Vec::new(),
            binds: VecDeque::new(),
            denied: Vec::new(),
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
                if end > message.len() {
                    return FromServer::Malformed;
                }
                match self.channels.iter().find(|channel| channel.number == number) {
                    Some(channel) => FromServer::Relayed(channel.to, CHANNEL_HEADER_BYTES..end),
                    None => FromServer::Nothing,
                }
            }
            [0..4, ..] => self.control(now, message),
            _ => FromServer::Malformed,
        }
    }

    fn control(&mut self, now: Instant, bytes: &[u8]) -> FromServer {
        let Ok(message) = Message::from_bytes(bytes) else { return FromServer::Malformed };
        // A client is asked nothing, and this one would keep what it is asked for TCP.
        if message.class() == MessageClass::Request {
            return FromServer::Nothing;
        }
        let at = self.at(now);
        let transmit = Transmit::new(bytes, TransportType::Udp, self.server, self.local);
        let refused = self.refused_by(&message);
        let bind = self.answered_bind(&message);
        match self.client.recv(transmit, at) {
            TurnRecvRet::PeerData(data) => match within(bytes, data.data()) {
                Some(range) => FromServer::Relayed(data.peer, range),
                None => FromServer::Nothing,
            },
            TurnRecvRet::Handled | TurnRecvRet::PeerIcmp { .. } => {
                match (bind, message.class()) {
                    (Some(index), MessageClass::Success) => {
                        self.binds[index].answer = BindAnswer::Bound;
                        self.refusal = None;
                    }
                    (None, MessageClass::Success) => self.refusal = None,
                    _ => {}
                }
                FromServer::Control
            }
            // The client goes by errors with a MESSAGE-INTEGRITY alone, which some can't have
            // (RFC 8489 §9.2.4), and those of pion's server never have.
            TurnRecvRet::Ignored(_) => match (refused, bind) {
                (Some(ALLOCATE), _) if !self.allocated => {
                    self.over = self.refusal.clone();
                    FromServer::Control
                }
                (Some(CHANNEL_BIND), Some(index)) => {
                    self.deny(index);
                    FromServer::Control
                }
                _ => FromServer::Nothing,
            },
        }
    }

    /// Which of our requests for channels this answers.
    fn answered_bind(&self, message: &Message<'_>) -> Option<usize> {
        let id = message.transaction_id();
        if message.method() != CHANNEL_BIND {
            return None;
        }
        self.binds.iter().position(|bind| bind.id == id)
    }

    /// A channel was refused. One that stands goes on until the server lets it expire.
    fn deny(&mut self, index: usize) {
        let Bind { channel: Channel { to, .. }, answer, .. } = &mut self.binds[index];
        let (to, before) = (*to, std::mem::replace(answer, BindAnswer::Refused));
        if before != BindAnswer::None || self.reaches(to) {
            return;
        }
        self.held.retain(|held| held.0 != to);
        let why = self.refusal.take().unwrap_or_default();
        self.denied.push((to, format!("refused to relay to {to}: {why}")));
    }

    /// Takes note of an error of the server's; its method, if it answers a request of ours for an
    /// allocation or a channel, and not with a question for who we are.
    fn refused_by(&mut self, message: &Message<'_>) -> Option<Method> {
        if message.class() != MessageClass::Error {
            return None;
        }
        let error = message.attribute::<ErrorCode>().ok()?;
        let asks = match error.code() {
            401 => !std::mem::replace(&mut self.challenged, true),
            438 => true,
            _ => false,
        };
        if asks {
            return None;
        }
        let reason = error.reason().chars().filter(|c| !c.is_control()).take(REASON_CHARS_MAX);
        let reason: String = reason.collect();
        self.refusal = Some(format!("{} {reason}", error.code()).trim_end().to_owned());
        let method = message.method();
        let is_ours = self.asked == Some(message.transaction_id());
        (method == CHANNEL_BIND || is_ours).then_some(method)
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
            for (to, why) in self.denied.drain(..) {
                happened(AllocationEvent::NoChannel(to, why));
            }
            if let Some(why) = self.over.take() {
                let refused = format!("refused the allocation: {why}");
                return self.ended(refused, happened);
            }
            self.send_requests(self.at(now), send);
            if let Some(event) = self.client.poll_event() {
                self.event(event, send, happened);
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
            // Requests for allocations and for channels (RFC 8656 §17.1).
            if let [0, 3 | 9, ..] = transmit.data[..]
                && let Ok(message) = Message::from_bytes(&transmit.data)
            {
                self.note(&message);
            }
            send(transmit.data.to_vec());
        }
    }

    /// Takes note of a request of ours.
    fn note(&mut self, message: &Message<'_>) {
        let id = message.transaction_id();
        if message.method() == ALLOCATE {
            self.asked = Some(id);
            return;
        }
        let number = message.attribute::<ChannelNumber>();
        let to = message.attribute::<XorPeerAddress>();
        let (Ok(number), Ok(to)) = (number, to) else { return };
        if self.binds.iter().any(|bind| bind.id == id) {
            return;
        }
        if self.binds.len() >= CHANNELS_MAX {
            self.binds.pop_front();
        }
        let channel = Channel { number: number.channel(), to: to.addr(id) };
        self.binds.push_back(Bind { id, channel, answer: BindAnswer::None });
    }

    fn event(
        &mut self,
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
                let is_it =
                    |bind: &&Bind| bind.channel.to == to && bind.answer == BindAnswer::Bound;
                let Some(bind) = self.binds.iter().rev().find(is_it) else { return };
                self.channels.push(bind.channel);
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
                let is_it =
                    |bind: &Bind| bind.channel.to == to && bind.answer == BindAnswer::Refused;
                // That was told when it came.
                if !self.reaches(to) && self.binds.iter().any(is_it) {
                    return;
                }
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

#[cfg(test)]
mod tests;
