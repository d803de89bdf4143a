#![allow(clippy::unwrap_used, reason = "tests may panic")]

use std::time::{Duration, Instant};

use proptest::prelude::*;
use str0m::crypto::dtls::{DtlsInstance, DtlsOutput, DtlsVersion};

use super::*;
use crate::crypto::provider;

/// A record in clear.
fn record(kind: u8, number: u16, body: &[u8]) -> Vec<u8> {
    let mut record = vec![kind, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0];
    record.extend(number.to_be_bytes());
    record.extend((body.len() as u16).to_be_bytes());
    record.extend(body);
    record
}

/// Part of a message in a record of its own.
fn part(kind: u8, number: u16, (length, at): (usize, usize), bytes: &[u8]) -> Vec<u8> {
    let three = |value: usize| (value as u32).to_be_bytes()[1..].to_vec();
    let mut body = vec![kind];
    body.extend(three(length));
    body.extend(number.to_be_bytes());
    body.extend(three(at));
    body.extend(three(bytes.len()));
    body.extend(bytes);
    record(HANDSHAKE, number, &body)
}

/// What a front gave on of these datagrams, and how many of them it refused.
fn given(front: &mut Front, datagrams: &[Vec<u8>]) -> (Vec<Vec<u8>>, usize) {
    let (mut given, mut refused) = (Vec::new(), 0);
    for datagram in datagrams {
        let mut give = |record: &[u8]| {
            given.push(record.to_vec());
            Ok(())
        };
        refused += usize::from(front.take(datagram, &mut give).is_err());
    }
    (given, refused)
}

fn whole(kind: u8, number: u16, bytes: &[u8]) -> Vec<u8> {
    part(kind, number, (bytes.len(), 0), bytes)
}

#[test]
fn messages_are_given_whole_and_in_their_order() {
    let mut front = Front::default();
    let certificate = |at: usize, len: usize| part(CERTIFICATE, 1, (10, at), &[7; 10][..len]);
    let early =
        [&record(CHANGE_CIPHER_SPEC, 9, &[1])[..], &[22, 0xfe, 0xfd, 0, 1], &[0; 8]].concat();
    let came = [
        early,
        certificate(6, 4),
        whole(CERTIFICATE_VERIFY, 3, b"verify"),
        whole(CLIENT_HELLO, 0, b"hello"),
        certificate(0, 3),
        whole(CLIENT_KEY_EXCHANGE, 2, b"key"),
        certificate(2, 5),
    ];
    let (given, refused) = given(&mut front, &came);
    let mut wanted = vec![
        whole(CLIENT_HELLO, 0, b"hello"),
        whole(CERTIFICATE, 1, &[7; 10]),
        whole(CLIENT_KEY_EXCHANGE, 2, b"key"),
        whole(CERTIFICATE_VERIFY, 3, b"verify"),
        record(CHANGE_CIPHER_SPEC, 9, &[1]),
    ];
    wanted.push([&[22, 0xfe, 0xfd, 0, 1][..], &[0; 8]].concat());
    assert_eq!((given, refused), (wanted, 0));
}

#[test]
fn what_comes_later_takes_the_place_of_what_contradicts_it() {
    let mut front = Front::default();
    let own = whole(CLIENT_HELLO, 0, b"client hello");
    for forged in [
        part(CLIENT_HELLO, 0, (500, 0), &[9; 100]),
        part(CLIENT_HELLO, 0, (12, 4), &[9; 3]),
        whole(CLIENT_HELLO, 1, b"no second one"),
        whole(SERVER_HELLO, 0, b"of a server"),
        whole(CERTIFICATE, 0, b"not first"),
        part(CERTIFICATE, 1, (500, 3), &[9; 100]),
    ] {
        given(&mut front, &[forged]);
    }
    assert_eq!(given(&mut front, std::slice::from_ref(&own)), (vec![own.clone()], 0));
    // The answer was lost.
    assert_eq!(given(&mut front, std::slice::from_ref(&own)), (vec![own], 0));
    let certificate = whole(CERTIFICATE, 1, b"certificate");
    assert_eq!(given(&mut front, std::slice::from_ref(&certificate)), (vec![certificate], 0));
}

#[test]
fn what_no_handshake_has_is_refused() {
    let mut front = Front::default();
    let huge = MESSAGE_BYTES_MAX + 1;
    for (what, forged) in [
        ("a fatal alert", record(21, 1, &[2, 40])),
        ("a goodbye", record(21, 1, &[1, 0])),
        ("data", record(23, 1, &[7; 60])),
        ("no message", record(HANDSHAKE, 1, &[])),
        ("half a head", record(HANDSHAKE, 1, &[1, 0, 0, 4])),
        ("too long a message", part(CLIENT_HELLO, 0, (huge, 0), &[9; 100])),
        ("a part behind its end", part(CLIENT_HELLO, 0, (100, 90), &[9; 11])),
        ("an empty part", part(CLIENT_HELLO, 0, (100, 90), &[])),
        ("a number that never comes", part(CERTIFICATE, 60_000, (100, 0), &[9; 100])),
        ("rubbish", vec![22; 200]),
        ("the head of a record", vec![22; 5]),
    ] {
        assert_eq!(given(&mut front, &[forged]), (vec![], 1), "{what}");
    }
    let too_early: Vec<_> = (0..100).map(|n| record(CHANGE_CIPHER_SPEC, n, &[1])).collect();
    assert_eq!(given(&mut front, &too_early), (vec![], 0));
    let sealed = [&[22, 0xfe, 0xfd, 0, 1][..], &[0; 8]].concat();
    assert_eq!(given(&mut front, &[sealed]), (vec![], 0));
}

#[test]
fn room_is_bounded_whatever_comes() {
    let mut front = Front::default();
    for number in 0..u16::MAX {
        for at in [0, 1_000, MESSAGE_BYTES_MAX - 2] {
            let kind = [CLIENT_HELLO, CERTIFICATE, CLIENT_KEY_EXCHANGE, CERTIFICATE_VERIFY];
            let (kind, number) = (kind[usize::from(number % 4)], number % 8);
            given(&mut front, &[part(kind, number, (MESSAGE_BYTES_MAX, at), &[9])]);
        }
    }
    let early = [&record(CHANGE_CIPHER_SPEC, 9, &[1])[..], &[0; 9_000]].concat();
    given(&mut front, &[early]);
    // As many holes as there may be, and more.
    let holes: Vec<_> =
        (0..60 * PARTS_MAX).map(|at| part(CLIENT_HELLO, 0, (8_000, 2 * at), &[9])).collect();
    assert!(given(&mut front, &holes).1 > 0);
    let message = |message: &Message| message.bytes.capacity() + 16 * message.known.capacity();
    let waiting: usize = front.waiting.iter().flatten().map(message).sum();
    let again = front.again.as_ref().map_or(0, |(_, it)| message(it));
    let bytes = waiting + again + front.held.capacity();
    assert!(bytes <= (MESSAGES_MAX + 1) * (MESSAGE_BYTES_MAX + 1_024) + HELD_BYTES_MAX, "{bytes}");
}

/// One end of a handshake.
struct Side {
    dtls: Box<dyn DtlsInstance>,
    sent: Vec<Vec<u8>>,
    connected: bool,
    errors: usize,
}

impl Side {
    fn new(is_client: bool, now: Instant) -> Self {
        let provider = provider().dtls_provider;
        let certificate = provider.generate_certificate().unwrap();
        let mut dtls =
            provider.new_dtls(&certificate, now, DtlsVersion::Dtls12, Some(1_200)).unwrap();
        dtls.set_active(is_client);
        dtls.handle_timeout(now).unwrap();
        Self { dtls, sent: Vec::new(), connected: false, errors: 0 }
    }

    fn hears(&mut self, datagram: &[u8]) {
        self.errors += usize::from(self.dtls.handle_packet(datagram).is_err());
        self.poll();
    }

    fn poll(&mut self) {
        let mut buffer = [0; 2_048];
        loop {
            match self.dtls.poll_output(&mut buffer) {
                DtlsOutput::Packet(packet) => self.sent.push(packet.to_vec()),
                DtlsOutput::Connected => self.connected = true,
                DtlsOutput::Timeout(_) => return,
                _ => {}
            }
        }
    }
}

/// Lets two shake hands; before each datagram each of them hears what is forged then. How long it took, if
/// it came to anything.
fn shake_hands(mut forged: impl FnMut(usize, bool) -> Vec<Vec<u8>>) -> Option<Duration> {
    let start = Instant::now();
    let mut sides = [Side::new(true, start), Side::new(false, start)];
    let mut heard = 0;
    for step in 0..400 {
        let now = start + Duration::from_millis(50 * step);
        for side in &mut sides {
            side.dtls.handle_timeout(now).unwrap();
            side.poll();
        }
        for from in [0, 1] {
            for datagram in std::mem::take(&mut sides[from].sent) {
                for (to, side) in sides.iter_mut().enumerate() {
                    for forged in forged(heard, to == 0) {
                        side.hears(&forged);
                    }
                }
                heard += 1;
                sides[1 - from].hears(&datagram);
            }
        }
        if sides.iter().all(|side| side.connected) {
            return Some(now - start);
        }
    }
    None
}

/// What ends a handshake of dimpl's own where it is heard in time, and what fills its queue.
fn garbage(number: u16) -> Vec<Vec<u8>> {
    let mut all = vec![
        record(21, number, &[2, 40]),
        record(21, number, &[1, 0]),
        record(CHANGE_CIPHER_SPEC, number, &[1]),
        [
            &record(CHANGE_CIPHER_SPEC, number, &[1])[..],
            &[22, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 1, 0, 40],
            &[9; 40],
        ]
        .concat(),
        record(HANDSHAKE, number, &[]),
        vec![22; 200],
    ];
    for kind in 0..=25 {
        for of in 0..8 {
            all.push(part(kind, of, (300, 0), &[9; 40]));
            all.push(part(kind, of, (300, 200), &[9; 40]));
            all.push(part(kind, of, (1 << 20, 9_000), &[9; 40]));
            all.push(part(kind, number.wrapping_mul(97), (300, 0), &[9; 40]));
        }
    }
    all
}

#[test]
fn a_handshake_takes_no_longer_for_what_cannot_be_of_it() {
    let calm = shake_hands(|_, _| Vec::new());
    assert!(calm.unwrap() < Duration::from_millis(100), "{calm:?}");
    for at in 0..4 {
        let took = shake_hands(|heard, _| if heard == at { garbage(7) } else { Vec::new() });
        assert_eq!(took, calm, "before datagram {at}");
    }
}

#[test]
fn a_handshake_gets_there_whatever_is_heard_all_the_time() {
    let took = shake_hands(|heard, _| garbage(heard as u16));
    assert!(took.unwrap() < Duration::from_secs(4), "{took:?}");
    // Messages of the right kind at the right time that can't be read.
    let took = shake_hands(|heard, is_client| {
        let kinds = match is_client {
            true => [SERVER_HELLO, CERTIFICATE, SERVER_KEY_EXCHANGE, CERTIFICATE_REQUEST],
            false => [CLIENT_HELLO, CERTIFICATE, CLIENT_KEY_EXCHANGE, CERTIFICATE_VERIFY],
        };
        let numbered = kinds.into_iter().zip(0..);
        let once = if heard < 3 { 4 } else { 0 };
        numbered.take(once).map(|(kind, number)| whole(kind, number, &[0xff; 3])).collect()
    });
    assert!(took.unwrap() < Duration::from_secs(4), "{took:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_bytes_are_taken_in_bounded_room(
        datagrams in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20),
        is_client: bool,
    ) {
        let mut front = Front::default();
        front.set_client(is_client);
        for mut datagram in datagrams {
            if let [first, _, _, epoch, low, ..] = &mut datagram[..] {
                (*first, *epoch, *low) = (20 + *first % 4, 0, *low % 2);
            }
            // Lengths that fit, so that something is read behind them.
            if let Some(body) = datagram.len().checked_sub(RECORD_HEAD_BYTES) {
                datagram[11..13].copy_from_slice(&(body as u16).to_be_bytes());
            }
            given(&mut front, &[datagram]);
        }
    }
}
