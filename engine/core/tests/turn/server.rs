//! A TURN server in virtual time (RFC 8656), of which nothing is taken that it would not take.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use turn_client_proto::types::attribute::{
    ChannelNumber, Data, Lifetime, XorPeerAddress, XorRelayedAddress,
};
use turn_client_proto::types::message::{
    ALLOCATE, CHANNEL_BIND, CREATE_PERMISSION, DATA, REFRESH, SEND,
};
use turn_client_proto::types::stun::attribute::{
    ErrorCode, MessageIntegrity, Nonce, Realm, Username,
};
use turn_client_proto::types::stun::message::{
    IntegrityAlgorithm, IntegrityKey, LongTermCredentials, Message, MessageClass, MessageWriteVec,
};
use turn_client_proto::types::stun::prelude::{AttributeStaticType, MessageWrite, MessageWriteExt};

pub(crate) const USER: &str = "a-user-name";
pub(crate) const PASSWORD: &str = "a-password";
const REALM: &str = "realm";
/// RFC 8656 §3.2, §9, §12.
const ALLOCATED_FOR: Duration = Duration::from_secs(600);
const ALLOWED_FOR: Duration = Duration::from_secs(300);
const BOUND_FOR: Duration = Duration::from_secs(600);

pub(crate) struct TurnAt {
    pub(crate) address: SocketAddr,
    pub(crate) password: &'static str,
    pub(crate) is_silent: bool,
    /// Code, reason, and whether the refusal is signed.
    pub(crate) refuses_allocations: Option<(u16, &'static str, bool)>,
    pub(crate) refuses_peers: bool,
    /// Without a signature, as pion's server does.
    pub(crate) refuses_peers_unsigned: bool,
    /// Answers wait here till there are so many, and leave in the wrong order.
    pub(crate) turns_round: usize,
    waiting: Vec<Datagram>,
    /// What was relayed, and asked for.
    pub(crate) relayed_out: u64,
    pub(crate) relayed_in: u64,
    pub(crate) send_indications: u64,
    pub(crate) refreshes: u64,
    pub(crate) stale: u64,
    /// Datagrams and requests that no allocation, permission or channel allowed.
    pub(crate) unallowed: u64,
    nonce: u32,
    allocation: Option<(SocketAddr, Instant)>,
    allowed: Vec<(IpAddr, Instant)>,
    channels: Vec<(u16, SocketAddr, Instant)>,
}

type Datagram = (SocketAddr, SocketAddr, Vec<u8>);

impl TurnAt {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            password: PASSWORD,
            is_silent: false,
            refuses_allocations: None,
            refuses_peers: false,
            refuses_peers_unsigned: false,
            turns_round: 0,
            waiting: Vec::new(),
            relayed_out: 0,
            relayed_in: 0,
            send_indications: 0,
            refreshes: 0,
            stale: 0,
            unallowed: 0,
            nonce: 1,
            allocation: None,
            allowed: Vec::new(),
            channels: Vec::new(),
        }
    }

    pub(crate) fn is_allocated(&self) -> bool {
        self.allocation.is_some()
    }

    pub(crate) fn new_nonce(&mut self) {
        self.nonce += 1;
    }

    /// The client's connection is gone, and with it what was allocated.
    pub(crate) fn forget(&mut self) {
        self.allocation = None;
        self.allowed.clear();
        self.channels.clear();
    }

    fn relay(&self) -> SocketAddr {
        SocketAddr::new(self.address.ip(), 50_000)
    }

    /// Takes a datagram if it is for this server or its relay.
    pub(crate) fn take(
        &mut self,
        now: Instant,
        from: SocketAddr,
        to: SocketAddr,
        bytes: &[u8],
    ) -> Vec<Datagram> {
        if self.allocation.is_some_and(|(_, until)| until <= now) {
            self.forget();
        }
        self.allowed.retain(|(_, until)| *until > now);
        self.channels.retain(|(.., until)| *until > now);
        if self.is_silent {
            return Vec::new();
        }
        if to == self.relay() {
            return self.inwards(from, bytes).into_iter().collect();
        }
        if to != self.address {
            return Vec::new();
        }
        let answer = self.outwards(now, from, bytes);
        answer.map(|answer| self.turned_round(answer)).unwrap_or_default()
    }

    fn inwards(&mut self, from: SocketAddr, bytes: &[u8]) -> Option<Datagram> {
        let (client, _) = self.allocation?;
        if !self.allowed.iter().any(|(ip, _)| *ip == from.ip()) {
            return None;
        }
        self.relayed_in += 1;
        if let Some((number, ..)) = self.channels.iter().find(|(_, peer, _)| *peer == from) {
            let mut data = number.to_be_bytes().to_vec();
            data.extend((bytes.len() as u16).to_be_bytes());
            data.extend(bytes);
            return Some((self.address, client, data));
        }
        let mut message = Message::builder_indication(DATA, MessageWriteVec::new());
        let peer = XorPeerAddress::new(from, message.transaction_id());
        message.add_attribute(&peer).unwrap();
        message.add_attribute(&Data::new(bytes)).unwrap();
        Some((self.address, client, message.finish()))
    }

    fn outwards(&mut self, now: Instant, from: SocketAddr, bytes: &[u8]) -> Option<Datagram> {
        if matches!(bytes[0], 64..80) {
            let number = u16::from_be_bytes([bytes[0], bytes[1]]);
            let end = 4 + usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
            let is_own = self.allocation.is_some_and(|(client, _)| client == from);
            let is_it = |channel: &&(u16, SocketAddr, Instant)| is_own && channel.0 == number;
            let Some((_, peer, _)) = self.channels.iter().find(is_it) else {
                self.unallowed += 1;
                return None;
            };
            self.relayed_out += 1;
            return Some((self.relay(), *peer, bytes[4..end].to_vec()));
        }
        let message = Message::from_bytes(bytes).unwrap();
        if message.class() == MessageClass::Indication {
            assert_eq!(message.method(), SEND);
            self.send_indications += 1;
            return None;
        }
        assert_eq!(message.class(), MessageClass::Request);
        let answer = self.answer(now, from, &message);
        Some((self.address, from, answer))
    }

    /// The same of all that asks for channels, in the wrong order.
    fn turned_round(&mut self, answer: Datagram) -> Vec<Datagram> {
        if answer.2[..2] != [1, 9] {
            return vec![answer];
        }
        self.waiting.push(answer);
        if self.waiting.len() < self.turns_round {
            return Vec::new();
        }
        self.waiting.drain(..).rev().collect()
    }

    fn key(&self) -> IntegrityKey {
        let credentials = LongTermCredentials::new(USER.to_owned(), self.password.to_owned());
        credentials.to_key(REALM.to_owned()).make_key(IntegrityAlgorithm::Sha1)
    }

    fn refuse(&self, message: &Message<'_>, code: u16, reason: &str, signed: bool) -> Vec<u8> {
        let mut answer = Message::builder_error(message, MessageWriteVec::new());
        answer.add_attribute(&ErrorCode::new(code, reason).unwrap()).unwrap();
        if matches!(code, 401 | 438) {
            answer.add_attribute(&Realm::new(REALM).unwrap()).unwrap();
            let nonce = format!("nonce{}", self.nonce);
            answer.add_attribute(&Nonce::new(&nonce).unwrap()).unwrap();
        }
        if signed {
            let key = self.key();
            answer.add_message_integrity_with_key(&key, IntegrityAlgorithm::Sha1).unwrap();
        }
        answer.finish()
    }

    fn answer(&mut self, now: Instant, from: SocketAddr, message: &Message<'_>) -> Vec<u8> {
        if !message.has_attribute(MessageIntegrity::TYPE) {
            return self.refuse(message, 401, "Unauthorized", false);
        }
        assert_eq!(message.attribute::<Username>().unwrap().username(), USER);
        let nonce = message.attribute::<Nonce>().unwrap();
        if nonce.nonce() != format!("nonce{}", self.nonce) {
            self.stale += 1;
            return self.refuse(message, 438, "Stale Nonce", false);
        }
        if message.validate_integrity_with_key(&self.key()).is_err() {
            return self.refuse(message, 401, "Unauthorized", false);
        }
        let is_own = self.allocation.is_some_and(|(client, _)| client == from);
        if message.method() == ALLOCATE {
            if let Some((code, reason, signed)) = self.refuses_allocations {
                return self.refuse(message, code, reason, signed);
            }
        } else if !is_own {
            self.unallowed += 1;
            return self.refuse(message, 437, "Allocation Mismatch", true);
        }
        let mut answer = Message::builder_success(message, MessageWriteVec::new());
        let peer = message.attribute::<XorPeerAddress>().ok();
        let peer = peer.map(|peer| peer.addr(message.transaction_id()));
        if peer.is_some() && self.refuses_peers {
            return self.refuse(message, 403, "Forbidden", true);
        }
        if peer.is_some() && self.refuses_peers_unsigned {
            let mut answer = Message::builder_error(message, MessageWriteVec::new());
            answer.add_attribute(&ErrorCode::new(401, "Unauthorized").unwrap()).unwrap();
            return answer.finish();
        }
        match (message.method(), peer) {
            (ALLOCATE, _) => {
                self.allocation = Some((from, now + ALLOCATED_FOR));
                let relayed = XorRelayedAddress::new(self.relay(), message.transaction_id());
                answer.add_attribute(&relayed).unwrap();
                answer.add_attribute(&Lifetime::new(ALLOCATED_FOR.as_secs() as u32)).unwrap();
            }
            (REFRESH, _) => {
                self.refreshes += 1;
                let asked = message.attribute::<Lifetime>().unwrap().seconds();
                let lifetime = asked.min(ALLOCATED_FOR.as_secs() as u32);
                match lifetime {
                    0 => self.forget(),
                    _ => self.allocation = Some((from, now + ALLOCATED_FOR)),
                }
                answer.add_attribute(&Lifetime::new(lifetime)).unwrap();
            }
            (CREATE_PERMISSION, Some(peer)) => self.allow(now, peer.ip()),
            (CHANNEL_BIND, Some(peer)) => {
                let number = message.attribute::<ChannelNumber>().unwrap().channel();
                self.allow(now, peer.ip());
                self.channels.retain(|(own, ..)| *own != number);
                self.channels.push((number, peer, now + BOUND_FOR));
            }
            (method, peer) => panic!("{method:?} {peer:?}"),
        }
        let key = self.key();
        answer.add_message_integrity_with_key(&key, IntegrityAlgorithm::Sha1).unwrap();
        answer.finish()
    }

    fn allow(&mut self, now: Instant, ip: IpAddr) {
        self.allowed.retain(|(own, _)| *own != ip);
        self.allowed.push((ip, now + ALLOWED_FOR));
    }
}
