//! What an allocation does with more candidates, and more that waits for their channels, than it has
//! room for.

#[path = "../../tests/turn/server.rs"]
#[allow(dead_code, reason = "shared with the test of whole peers")]
mod server;

use server::{PASSWORD, TurnAt, USER};

use super::*;

struct Rig {
    now: Instant,
    local: SocketAddr,
    allocation: Allocation,
    turn: TurnAt,
}

fn candidate(number: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 5], 7_000 + number as u16))
}

impl Rig {
    fn new() -> Self {
        let (now, address) = (Instant::now(), SocketAddr::from(([10, 9, 9, 1], 3_478)));
        let local = SocketAddr::from(([192, 168, 0, 1], 41_000));
        let named = TurnServer {
            by: PathKind::TurnUdp,
            host: address.ip().to_string().into(),
            address: Some(address),
            username: USER.into(),
            credential: PASSWORD.into(),
        };
        let allocation = Allocation::new(now, local, address, &named);
        let mut rig = Self { now, local, allocation, turn: TurnAt::new(address) };
        rig.run();
        assert!(rig.turn.is_allocated());
        rig
    }

    /// What both have to say, until neither has anything any more.
    fn run(&mut self) {
        for _ in 0..4 * CHANNELS_MAX {
            let mut sent = Vec::new();
            self.allocation.poll(self.now, &mut |message| sent.push(message), &mut |_| {});
            for message in &sent {
                for (_, to, answer) in
                    self.turn.take(self.now, self.local, self.turn.address, message)
                {
                    if to == self.local {
                        self.allocation.receive(self.now, &answer);
                    }
                }
            }
            self.now += Duration::from_millis(1);
        }
    }

    fn hold(&mut self, number: usize) -> bool {
        self.allocation.hold(self.now, candidate(number), vec![0; 20])
    }

    fn reached(&self, candidates: usize) -> usize {
        (0..candidates).filter(|number| self.allocation.reaches(candidate(*number))).count()
    }
}

#[test]
fn beyond_the_channels_that_there_are_nothing_is_held() {
    let mut rig = Rig::new();
    for number in 0..CHANNELS_MAX {
        assert!(rig.hold(number));
        rig.run();
    }
    assert!(!rig.hold(CHANNELS_MAX));
    rig.run();
    assert_eq!(rig.reached(CHANNELS_MAX + 1), CHANNELS_MAX);
    assert_eq!((rig.turn.relayed_out, rig.turn.unallowed), (CHANNELS_MAX as u64, 0));
}

#[test]
fn so_many_datagrams_wait_for_their_channel() {
    let mut rig = Rig::new();
    let held = (0..HELD_DATAGRAMS_MAX + 3).filter(|_| rig.hold(0)).count();
    rig.run();
    assert_eq!((held, rig.turn.relayed_out), (HELD_DATAGRAMS_MAX, HELD_DATAGRAMS_MAX as u64));
    assert_eq!(rig.reached(1), 1);
}
