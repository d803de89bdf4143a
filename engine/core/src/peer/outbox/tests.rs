//! What waits for a drain is bounded.

use std::net::SocketAddr;

use super::*;

#[derive(Default)]
struct Sent(u64);

impl PeerSink for Sent {
    fn transmit(&mut self, _: LocalId, _: SocketAddr, _: &[u8]) {
        self.0 += 1;
    }
    fn event(&mut self, _: PeerEvent) {}
    fn recorded(&mut self, _: &RecordedStream, _: RecordedFrame) {}
}

#[test]
fn datagrams_beyond_the_maximum_are_dropped_and_counted() {
    let (mut outbox, mut sent) = (Outbox::default(), Sent::default());
    let to: SocketAddr = "127.0.0.1:9".parse().unwrap();
    for _ in 0..OUTBOX_DATAGRAMS_MAX + 3 {
        outbox.datagram(LocalId::default(), to, vec![0; 4].into());
    }
    outbox.flush(Instant::now(), &mut sent);
    let all = OUTBOX_DATAGRAMS_MAX as u64;
    assert_eq!((sent.0, outbox.sent, outbox.dropped), (all, all, 3));
    // What was handed out makes room.
    outbox.datagram(LocalId::default(), to, vec![0; 4].into());
    outbox.flush(Instant::now(), &mut sent);
    assert_eq!((sent.0, outbox.dropped), (all + 1, 3));
}
