//! How many bytes does a receiving peer take, and a stream that it receives? They are what they are
//! whatever the machine, so each has a bound: what the peer's own code holds, without what aws-lc
//! allocates by itself, sockets and signalling.
//!
//! `cargo test -p stampede-benches --test peer_memory -- --nocapture` prints them.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may panic, and prints figures"
)]

#[path = "../benches/receiving/mod.rs"]
mod receiving;

use std::time::Instant;

use receiving::{Meeting, Stamps, connect};
use stampede_core::{DtlsIdentity, Peer, PeerOptions};

/// What is given back once it is dropped.
fn bytes_of<T>(held: T) -> u64 {
    let given_back = allocation_counter::measure(|| drop(held)).bytes_current;
    size_of::<T>() as u64 + given_back.unsigned_abs()
}

#[test]
fn a_connected_peer_is_small() {
    let options = PeerOptions::new(DtlsIdentity::generate().unwrap());
    let pair = connect(Instant::now(), &options, Stamps::None);
    let bytes = bytes_of(pair.peer);
    println!(
        "a peer that has just connected: {bytes} bytes, {} of them its own",
        size_of::<Peer>()
    );
    assert!(bytes < 38_000, "{bytes}");
}

#[test]
fn a_further_stream_is_small() {
    let options = PeerOptions::new(DtlsIdentity::generate().unwrap());
    let bytes = |streams| {
        let mut meeting = Meeting::new(streams, &options);
        let visits = meeting.seal(150);
        visits.iter().for_each(|visit| meeting.receive(visit));
        meeting.check();
        bytes_of(meeting.peer)
    };
    let (few, many) = (bytes(2), bytes(202));
    let of_each = (many - few) / 200;
    println!("a peer of a meeting: {few} bytes with 2 streams, {of_each} for each further one");
    assert!(few < 40_000, "{few}");
    assert!(of_each < 1_700, "{of_each}");
}
