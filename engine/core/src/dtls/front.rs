//! What a DTLS 1.2 handshake is heard through, before either side is authenticated.
//!
//! Until there are keys anybody can write records of a handshake who can write the peer's address into a
//! datagram. dimpl 0.9 keeps whatever fits its queue of 30, and forgets none of it: a fragment of a message
//! that never follows, a message of another kind in the place of the next one, or thirty records that say
//! that a cipher is changed keep what the peer repeats out for good. So it is handed whole messages alone,
//! in their order, of the kind that its handshake has there, each in a record of its own. What is only part
//! of one waits here, in bounded room, and what comes later takes the place of what contradicts it: a peer
//! repeats what it is not answered (RFC 6347 §4.2.4), and gets there.
//!
//! A whole message that is forged well, of the right kind at the right moment, is still believed by any
//! DTLS; its victim joins anew.

use dimpl::{Error, UnexpectedMessageError};

/// Longest message of a handshake. Certificates of WebRTC are signed by themselves, and have no chain.
pub(crate) const MESSAGE_BYTES_MAX: usize = 8 << 10;
/// Messages that may wait, the next one included: as many as the longest flight has in clear.
pub(crate) const MESSAGES_MAX: usize = 6;
/// Parts of one message that are known, where others between them are not.
pub(crate) const PARTS_MAX: usize = 16;
/// What waits of a datagram with a change of cipher, if that came before its flight.
const HELD_BYTES_MAX: usize = 2_048;

/// Bytes of a record before what it holds (RFC 6347 §4.1).
const RECORD_HEAD_BYTES: usize = 13;
/// Bytes of a message before its body (RFC 6347 §4.2.2).
const MESSAGE_HEAD_BYTES: usize = 12;

/// Content types (RFC 5246 §6.2.1).
const CHANGE_CIPHER_SPEC: u8 = 20;
const HANDSHAKE: u8 = 22;

/// Kinds of messages (RFC 5246 §7.4, RFC 6347 §4.3.2).
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
const HELLO_VERIFY_REQUEST: u8 = 3;
const CERTIFICATE: u8 = 11;
const SERVER_KEY_EXCHANGE: u8 = 12;
const CERTIFICATE_REQUEST: u8 = 13;
const SERVER_HELLO_DONE: u8 = 14;
const CERTIFICATE_VERIFY: u8 = 15;
const CLIENT_KEY_EXCHANGE: u8 = 16;

/// What is handed on.
type Give<'a> = dyn FnMut(&[u8]) -> Result<(), Error> + 'a;

/// The front of one handshake.
#[derive(Debug, Default)]
pub(crate) struct Front {
    is_client: bool,
    /// Number of the next message.
    next: u16,
    /// Kinds of those before it.
    kinds: [u8; MESSAGES_MAX],
    /// What is known of the next message, and of those behind it.
    waiting: [Option<Message>; MESSAGES_MAX],
    /// What is known of the message before them that the peer repeats, and its number.
    again: Option<(u16, Message)>,
    /// A change of cipher that came before its flight, and what was behind it in its datagram.
    held: Vec<u8>,
    /// The peer encrypts from now on.
    has_changed: bool,
}

impl Front {
    /// The handshake is a client's, or a server's.
    pub(crate) fn set_client(&mut self, is_client: bool) {
        self.is_client = is_client;
    }

    /// Takes a datagram of the peer's, and gives on what the handshake has use for.
    ///
    /// # Errors
    /// The first of what it was given to, or that there is something in it that no handshake has here. The
    /// handshake goes on.
    pub(crate) fn take(&mut self, datagram: &[u8], give: &mut Give<'_>) -> Result<(), Error> {
        if datagram.is_empty() {
            // str0m's way to begin.
            return give(datagram);
        }
        let mut taken = Ok(());
        let mut rest = datagram;
        while !rest.is_empty() {
            let Some((record, behind)) = Record::first(rest) else { return taken.and(refused()) };
            let one = match (record.kind, record.epoch) {
                (HANDSHAKE, 0) => self.handshake(record.body, give),
                // All are alike, and one is enough.
                (CHANGE_CIPHER_SPEC, 0) if self.has_changed => Ok(()),
                (CHANGE_CIPHER_SPEC, 0) if self.is_flight_whole() => {
                    self.has_changed = true;
                    give(record.bytes)
                }
                (CHANGE_CIPHER_SPEC, 0) => {
                    self.held.clear();
                    self.held.extend(&rest[..rest.len().min(HELD_BYTES_MAX)]);
                    return taken;
                }
                (_, 1..) if self.has_changed => give(record.bytes),
                // There are no keys yet; it will be repeated.
                (_, 1..) => Ok(()),
                // Alerts, above all.
                _ => refused(),
            };
            taken = taken.and(one);
            rest = behind;
        }
        taken
    }

    /// Takes the messages of a record in clear.
    fn handshake(&mut self, mut record: &[u8], give: &mut Give<'_>) -> Result<(), Error> {
        let mut taken = if record.is_empty() { refused() } else { Ok(()) };
        while !record.is_empty() {
            let Some((part, behind)) = Part::first(record) else { return taken.and(refused()) };
            record = behind;
            let one = match part.number.checked_sub(self.next) {
                None => self.take_again(&part, give),
                Some(ahead) => self.take_part(&part, usize::from(ahead)),
            };
            taken = taken.and(one).and(self.hand_on(give));
        }
        taken
    }

    /// Takes part of a message that was handed on already. dimpl answers what is repeated by repeating its
    /// answer; and it says nothing where it could make nothing of a message, and waits for it.
    fn take_again(&mut self, part: &Part<'_>, give: &mut Give<'_>) -> Result<(), Error> {
        if self.kinds.get(usize::from(part.number)) != Some(&part.kind) {
            return refused();
        }
        let known = self.again.take().filter(|(number, _)| *number == part.number);
        let mut message = known.map(|(_, message)| message);
        add(&mut message, part)?;
        let Some(message) = message else { return Ok(()) };
        if message.is_whole() {
            return give(&message.record(part.number));
        }
        self.again = Some((part.number, message));
        Ok(())
    }

    /// Keeps part of a message, if there may be such a one.
    fn take_part(&mut self, part: &Part<'_>, ahead: usize) -> Result<(), Error> {
        let may_be = match ahead {
            0 => self.expected().contains(&part.kind),
            _ => self.ever(part.number).contains(&part.kind),
        };
        match self.waiting.get_mut(ahead).filter(|_| may_be) {
            Some(message) => add(message, part),
            None => refused(),
        }
    }

    /// Gives on the messages that are whole and next.
    fn hand_on(&mut self, give: &mut Give<'_>) -> Result<(), Error> {
        while let Some(message) = self.waiting[0].take_if(|message| message.is_whole()) {
            let is_expected = self.expected().contains(&message.kind);
            let kind = self.kinds.get_mut(usize::from(self.next)).filter(|_| is_expected);
            let Some(kind) = kind else { return refused() };
            *kind = message.kind;
            // What is of no use is not the next message: the peer's own may follow.
            give(&message.record(self.next))?;
            self.next += 1;
            self.waiting.rotate_left(1);
        }
        if self.is_flight_whole() && !self.held.is_empty() {
            let held = std::mem::take(&mut self.held);
            return self.take(&held, give);
        }
        Ok(())
    }

    /// Kind of the latest message that was handed on.
    fn latest(&self) -> Option<u8> {
        let index = usize::from(self.next).checked_sub(1)?;
        self.kinds.get(index).copied()
    }

    /// Of which kinds the next message may be.
    fn expected(&self) -> &'static [u8] {
        match (self.is_client, self.latest()) {
            (false, None) => &[CLIENT_HELLO],
            (false, Some(CLIENT_HELLO)) => &[CERTIFICATE],
            (false, Some(CERTIFICATE)) => &[CLIENT_KEY_EXCHANGE],
            (false, Some(CLIENT_KEY_EXCHANGE)) => &[CERTIFICATE_VERIFY],
            (true, None) => &[SERVER_HELLO, HELLO_VERIFY_REQUEST],
            (true, Some(HELLO_VERIFY_REQUEST)) => &[SERVER_HELLO],
            (true, Some(SERVER_HELLO)) => &[CERTIFICATE],
            (true, Some(CERTIFICATE)) => &[SERVER_KEY_EXCHANGE],
            (true, Some(SERVER_KEY_EXCHANGE)) => &[CERTIFICATE_REQUEST, SERVER_HELLO_DONE],
            (true, Some(CERTIFICATE_REQUEST)) => &[SERVER_HELLO_DONE],
            _ => &[],
        }
    }

    /// Of which kinds a message of this number may be, whatever came before it: there may be a
    /// HelloVerifyRequest, and a CertificateRequest.
    fn ever(&self, number: u16) -> &'static [u8] {
        match (self.is_client, number) {
            (false, 1) => &[CERTIFICATE],
            (false, 2) => &[CLIENT_KEY_EXCHANGE],
            (false, 3) => &[CERTIFICATE_VERIFY],
            (true, 1) => &[SERVER_HELLO, CERTIFICATE],
            (true, 2) => &[CERTIFICATE, SERVER_KEY_EXCHANGE],
            (true, 3) => &[SERVER_KEY_EXCHANGE, CERTIFICATE_REQUEST, SERVER_HELLO_DONE],
            (true, 4) => &[CERTIFICATE_REQUEST, SERVER_HELLO_DONE],
            (true, 5) => &[SERVER_HELLO_DONE],
            _ => &[],
        }
    }

    /// All was handed on that the peer says in clear: it changes its cipher next.
    fn is_flight_whole(&self) -> bool {
        self.latest() == Some(if self.is_client { SERVER_HELLO_DONE } else { CERTIFICATE_VERIFY })
    }
}

/// Of what dimpl has to say that something is out of place.
fn refused() -> Result<(), Error> {
    Err(Error::UnexpectedMessage(UnexpectedMessageError::UnexpectedEpoch))
}

/// Adds a part to what is known of a message. It begins anew with what contradicts that.
fn add(known: &mut Option<Message>, part: &Part<'_>) -> Result<(), Error> {
    let same = known.take().filter(|it| it.kind == part.kind && it.length == part.length);
    let message = known.insert(same.unwrap_or_else(|| Message::new(part.kind, part.length)));
    if message.add(part) { Ok(()) } else { refused() }
}

/// A record as it came.
struct Record<'a> {
    kind: u8,
    epoch: u16,
    body: &'a [u8],
    bytes: &'a [u8],
}

impl<'a> Record<'a> {
    /// The first of a datagram, and what is behind it.
    fn first(datagram: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let head = datagram.first_chunk::<RECORD_HEAD_BYTES>()?;
        let length = usize::from(u16::from_be_bytes([head[11], head[12]]));
        let (bytes, behind) = datagram.split_at_checked(RECORD_HEAD_BYTES + length)?;
        let (kind, epoch) = (head[0], u16::from_be_bytes([head[3], head[4]]));
        Some((Self { kind, epoch, body: &bytes[RECORD_HEAD_BYTES..], bytes }, behind))
    }
}

/// Part of a message as it came, perhaps all of it.
struct Part<'a> {
    kind: u8,
    number: u16,
    /// Of the whole message.
    length: usize,
    at: usize,
    bytes: &'a [u8],
}

impl<'a> Part<'a> {
    /// The first of a record, and what is behind it; `None` if there can be no such message.
    fn first(record: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (head, rest) = record.split_first_chunk::<MESSAGE_HEAD_BYTES>()?;
        let three = |at: usize| {
            usize::from(head[at]) << 16 | usize::from(head[at + 1]) << 8 | usize::from(head[at + 2])
        };
        let (length, at, part) = (three(1), three(6), three(9));
        let fits = length <= MESSAGE_BYTES_MAX && at + part <= length && (part > 0 || length == 0);
        let (bytes, behind) = rest.split_at_checked(part).filter(|_| fits)?;
        let number = u16::from_be_bytes([head[4], head[5]]);
        Some((Self { kind: head[0], number, length, at, bytes }, behind))
    }
}

/// What is known of a message.
#[derive(Debug)]
struct Message {
    kind: u8,
    length: usize,
    bytes: Vec<u8>,
    /// From where to where there is something, in order, and none touching the next.
    known: Vec<(usize, usize)>,
}

impl Message {
    fn new(kind: u8, length: usize) -> Self {
        Self { kind, length, bytes: Vec::new(), known: Vec::new() }
    }

    /// Adds a part, over what contradicts it. False if there are too many holes, so that it begins anew
    /// with this one.
    fn add(&mut self, part: &Part<'_>) -> bool {
        let (mut from, mut to) = (part.at, part.at + part.bytes.len());
        if self.bytes.len() < to {
            self.bytes.resize(to, 0);
        }
        self.bytes[from..to].copy_from_slice(part.bytes);
        let own = (from, to);
        self.known.retain(|&(begin, end)| {
            let touches = begin <= to && from <= end;
            if touches {
                (from, to) = (from.min(begin), to.max(end));
            }
            !touches
        });
        let fits = self.known.len() < PARTS_MAX;
        if !fits {
            (from, to) = own;
            self.known.clear();
        }
        let at = self.known.partition_point(|known| known.0 < from);
        self.known.insert(at, (from, to));
        fits
    }

    fn is_whole(&self) -> bool {
        self.length == 0 || self.known == [(0, self.length)]
    }

    /// All of it in a record of its own.
    fn record(&self, number: u16) -> Vec<u8> {
        let length = (self.length as u32).to_be_bytes();
        let bytes = ((MESSAGE_HEAD_BYTES + self.length) as u16).to_be_bytes();
        let mut record = vec![HANDSHAKE, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0];
        record.extend(number.to_be_bytes());
        record.extend(bytes);
        record.push(self.kind);
        record.extend(&length[1..]);
        record.extend(number.to_be_bytes());
        record.extend([0; 3]);
        record.extend(&length[1..]);
        record.extend(&self.bytes);
        record
    }
}

#[cfg(test)]
mod tests;
