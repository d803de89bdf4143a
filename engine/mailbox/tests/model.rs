//! All orders in which the steps of two or three threads can happen: of the sending and the
//! receiving code that the engine and the SFU run, with a channel and an eventfd of the model
//! checker's.
//!
//! Whatever hangs is a deadlock here, for nothing in a model has a timeout. Each property comes
//! with the mistakes that it is there for, and the checker finds those.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may panic")]

mod parts;

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crossbeam_channel::TrySendError;
use loom::model::Builder;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::sync::{Condvar, Mutex};
use loom::thread;
use stampede_mailbox::{Mailbox, Outbox, Receiving, Sending, Sleeper, Wake, run};

use parts::{Eventfd, ModelReceiver, ModelSender, Poll, channel};

/// Times that a thread is stopped where it could go on: two suffice for every mistake below, and
/// this is one more.
const PREEMPTIONS_MAX: usize = 3;
const POLLS: [Poll; 2] = [Poll::Read, Poll::Edge];

fn check(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS_MAX);
    builder.check(model);
}

/// What the checker says of an order in which this goes wrong; it must find one.
fn goes_wrong(model: impl Fn() + Send + Sync + 'static) -> String {
    let panic = catch_unwind(AssertUnwindSafe(|| check(model))).expect_err("nothing was found");
    let text = panic.downcast_ref::<String>().cloned();
    text.unwrap_or_else(|| (*panic.downcast_ref::<&str>().expect("a text")).to_owned())
}

/// The checker finds that all threads wait: a wake-up is lost.
fn loses_a_wake_up(model: impl Fn() + Send + Sync + 'static) {
    let what = goes_wrong(model);
    assert!(what.starts_with("deadlock"), "{what}");
}

/// Who sent it, and its number.
type Item = (u8, u8);

/// What was handled so far, for whoever waits for it.
#[derive(Clone)]
struct Handled(Arc<(Mutex<Vec<Item>>, Condvar)>);

impl Handled {
    fn new() -> Self {
        Self(Arc::new((Mutex::new(Vec::new()), Condvar::new())))
    }

    fn add(&self, item: Item) {
        self.0.0.lock().unwrap().push(item);
        self.0.1.notify_all();
    }

    fn wait_for(&self, items: usize) -> Vec<Item> {
        let mut handled = self.0.0.lock().unwrap();
        while handled.len() < items {
            handled = self.0.1.wait(handled).unwrap();
        }
        handled.clone()
    }
}

/// A worker without sockets.
struct Worker {
    inbox: ModelReceiver<Item>,
    eventfd: Eventfd,
    poll: Poll,
    handled: Handled,
    /// Ends with this one.
    last: Option<Item>,
}

impl Sleeper for Worker {
    type Item = Item;
    type Inbox = ModelReceiver<Item>;
    type Error = ();

    fn inbox(&self) -> &ModelReceiver<Item> {
        &self.inbox
    }

    fn handle(&mut self, item: Item) -> ControlFlow<()> {
        self.handled.add(item);
        if Some(item) == self.last { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn work(&mut self, may_sleep: bool) -> Result<(), ()> {
        self.eventfd.poll(self.poll, may_sleep);
        Ok(())
    }
}

/// How a sender sends.
type Post<M> = fn(&M, Item) -> bool;
/// How a worker lives.
type Run = fn(&mut Worker);

fn product_run(worker: &mut Worker) {
    run(worker, 1).unwrap();
}

/// Two threads send `items` each to a worker that handles one a turn; what the mailbox of `max`
/// refuses is known to who sent it. All the rest is handled, with nothing else coming to help; then the
/// worker ends because the senders are gone.
fn sent_is_handled<M: Send + Sync + 'static>(
    (poll, max, items): (Poll, usize, u8),
    mailbox: fn(ModelSender<Item>, Eventfd) -> M,
    post: Post<M>,
    run: Run,
) {
    let (sender, inbox) = channel(max);
    let eventfd = Eventfd::new();
    let handled = Handled::new();
    let mut worker =
        Worker { inbox, eventfd: eventfd.clone(), poll, handled: handled.clone(), last: None };
    let worker = thread::spawn(move || run(&mut worker));
    // Shared, for a clone that is dropped would wake.
    let mailbox = Arc::new(mailbox(sender, eventfd));
    let send = move |mailbox: &M, who: u8| -> Vec<Item> {
        (0..items).map(|number| (who, number)).filter(|item| post(mailbox, *item)).collect()
    };
    let other = {
        let mailbox = Arc::clone(&mailbox);
        thread::spawn(move || send(&mailbox, 1))
    };
    let mut taken = vec![send(&mailbox, 0)];
    taken.push(other.join().unwrap());
    let expected = taken.iter().map(Vec::len).sum();
    // The mailbox is still there, so that its end wakes nobody.
    let all = handled.wait_for(expected);
    drop(mailbox);
    worker.join().unwrap();
    assert_eq!(handled.wait_for(0), all, "nothing twice");
    for (who, taken) in (0..).zip(taken) {
        let of_sender: Vec<Item> = all.iter().copied().filter(|item| item.0 == who).collect();
        assert_eq!(of_sender, taken, "all that was not refused, in order");
    }
}

fn product_post(mailbox: &Mailbox<ModelSender<Item>, Eventfd>, item: Item) -> bool {
    match mailbox.post(item) {
        Ok(()) => true,
        Err(TrySendError::Full(back)) => {
            assert_eq!(back, item);
            false
        }
        Err(TrySendError::Disconnected(_)) => panic!("the worker is there"),
    }
}

fn product_post_waiting(mailbox: &Mailbox<ModelSender<Item>, Eventfd>, item: Item) -> bool {
    mailbox.post_waiting(item).expect("the worker is there");
    true
}

#[test]
fn whatever_a_mailbox_takes_is_handled_once_and_in_order_and_the_rest_is_said() {
    for poll in POLLS {
        for (max, items) in [(1, 1), (2, 1), (1, 2)] {
            check(move || {
                sent_is_handled((poll, max, items), Mailbox::new, product_post, product_run);
            });
        }
    }
}

#[test]
fn who_waits_for_room_gets_it() {
    for poll in POLLS {
        check(move || {
            sent_is_handled((poll, 1, 1), Mailbox::new, product_post_waiting, product_run);
        });
    }
}

/// A mailbox with its two steps apart, for senders that make mistakes. Its end is as it should be.
struct Apart {
    queue: ModelSender<Item>,
    eventfd: Eventfd,
    _end: Mailbox<ModelSender<Item>, Eventfd>,
}

impl Apart {
    fn new(sender: ModelSender<Item>, eventfd: Eventfd) -> Self {
        let (queue, waker) = (sender.clone(), eventfd.clone());
        Self { queue, eventfd, _end: Mailbox::new(sender, waker) }
    }
}

#[test]
fn doing_the_two_steps_apart_is_no_mistake() {
    let apart = |mailbox: &Apart, item| {
        let sent = mailbox.queue.try_send(item).is_ok();
        if sent {
            mailbox.eventfd.wake();
        }
        sent
    };
    check(move || sent_is_handled((Poll::Read, 2, 1), Apart::new, apart, product_run));
}

#[test]
fn waking_before_the_item_is_there_is_found() {
    let wake_first = |mailbox: &Apart, item| {
        mailbox.eventfd.wake();
        mailbox.queue.try_send(item).is_ok()
    };
    for poll in POLLS {
        loses_a_wake_up(move || {
            sent_is_handled((poll, 2, 1), Apart::new, wake_first, product_run);
        });
    }
}

#[test]
fn not_waking_is_found() {
    let silent = |mailbox: &Apart, item| mailbox.queue.try_send(item).is_ok();
    loses_a_wake_up(move || {
        sent_is_handled((Poll::Read, 2, 1), Apart::new, silent, product_run);
    });
}

#[test]
fn sleeping_beside_what_is_left_over_is_found() {
    let sleepy: Run = |worker| {
        loop {
            match worker.inbox.try_receive() {
                Ok(item) => drop(worker.handle(item)),
                Err(error) if error.is_disconnected() => return,
                Err(_) => {}
            }
            worker.work(true).unwrap();
        }
    };
    for poll in POLLS {
        loses_a_wake_up(move || {
            sent_is_handled((poll, 2, 1), Mailbox::new, product_post, sleepy);
        });
    }
}

#[test]
fn taking_the_wake_up_away_behind_the_look_is_found() {
    let late: Run = |worker| {
        loop {
            worker.eventfd.readable();
            loop {
                match worker.inbox.try_receive() {
                    Ok(item) => drop(worker.handle(item)),
                    Err(error) if error.is_disconnected() => return,
                    Err(_) => break,
                }
            }
            worker.eventfd.clear();
        }
    };
    loses_a_wake_up(move || {
        sent_is_handled((Poll::Read, 2, 1), Mailbox::new, product_post, late);
    });
}

/// A worker ends with the first item while another thread waits for room: that ends, too, and knows
/// what became of its item.
fn ends_while_sending(poll: Poll) {
    let (sender, inbox) = channel(1);
    let eventfd = Eventfd::new();
    let handled = Handled::new();
    let last = Some((0, 0));
    let mut worker =
        Worker { inbox, eventfd: eventfd.clone(), poll, handled: handled.clone(), last };
    let worker = thread::spawn(move || product_run(&mut worker));
    let mailbox = Mailbox::new(sender, eventfd);
    let sent: Vec<bool> = (0..3).map(|number| mailbox.post_waiting((0, number)).is_ok()).collect();
    worker.join().unwrap();
    assert_eq!(handled.wait_for(0), [(0, 0)]);
    assert!(sent[0] && (sent[1] || !sent[2]), "{sent:?}");
    assert!(matches!(mailbox.post((0, 3)), Err(TrySendError::Disconnected((0, 3)))));
}

#[test]
fn a_worker_that_ends_ends_who_sends() {
    for poll in POLLS {
        check(move || ends_while_sending(poll));
    }
}

/// All senders are gone, and the worker that slept meanwhile ends.
fn ends_with_its_senders<M>(poll: Poll, mailbox: fn(ModelSender<Item>, Eventfd) -> M) {
    let (sender, inbox) = channel(1);
    let eventfd = Eventfd::new();
    let handled = Handled::new();
    let mut worker = Worker { inbox, eventfd: eventfd.clone(), poll, handled, last: None };
    let worker = thread::spawn(move || product_run(&mut worker));
    drop(mailbox(sender, eventfd));
    worker.join().unwrap();
}

#[test]
fn a_worker_without_senders_ends() {
    for poll in POLLS {
        check(move || ends_with_its_senders(poll, Mailbox::new));
    }
}

#[test]
fn waking_before_the_queue_is_closed_is_found() {
    struct WakesFirst {
        eventfd: Eventfd,
        _queue: ModelSender<Item>,
    }
    impl Drop for WakesFirst {
        fn drop(&mut self) {
            self.eventfd.wake();
        }
    }
    loses_a_wake_up(|| {
        ends_with_its_senders(Poll::Read, |_queue, eventfd| WakesFirst { eventfd, _queue });
    });
}

/// What a worker says: two halves of a moment, and whether it may be dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum News {
    Must(u8),
    Snapshot(u8, u8),
    Last,
}

/// Says things in two turns, then goes on until all of it is in the queue. How much it dropped.
fn tells(mut outbox: Outbox<News, ModelSender<News>, Eventfd>) -> u64 {
    for turn in 0..2 {
        outbox.offer(News::Snapshot(turn, turn));
        outbox.push(News::Must(turn));
        outbox.flush();
    }
    outbox.push(News::Last);
    loop {
        outbox.flush();
        if outbox.waiting() == 0 {
            return outbox.dropped();
        }
        thread::yield_now();
    }
}

/// One who reads: by the documented order, or by another.
type Read = fn(&Eventfd, &ModelReceiver<News>) -> Vec<News>;

/// As the router does: it takes the signal away, and then reads until nothing is left.
fn clears_first(eventfd: &Eventfd, receiver: &ModelReceiver<News>) -> Vec<News> {
    let mut seen = Vec::new();
    while seen.last() != Some(&News::Last) {
        eventfd.readable();
        eventfd.clear();
        seen.extend(std::iter::from_fn(|| receiver.try_receive().ok()));
    }
    seen
}

fn told_is_read(max: usize, waiting_max: usize, read: Read) {
    let (sender, receiver) = channel(max);
    let eventfd = Eventfd::new();
    let outbox = Outbox::new(sender, eventfd.clone(), waiting_max);
    let teller = thread::spawn(move || tells(outbox));
    let seen = read(&eventfd, &receiver);
    let dropped = teller.join().unwrap();
    let snapshots: Vec<_> =
        seen.iter().filter(|news| matches!(news, News::Snapshot(..))).copied().collect();
    assert_eq!(snapshots.len() as u64 + dropped, 2, "those that are missing are counted");
    let others: Vec<_> = seen.iter().filter(|news| !snapshots.contains(news)).copied().collect();
    assert_eq!(others, [News::Must(0), News::Must(1), News::Last], "none missing, in order");
    assert!(snapshots.is_sorted_by_key(|news| match news {
        News::Snapshot(turn, same) if turn == same => *turn,
        other => panic!("{other:?}"),
    }));
}

#[test]
fn what_must_be_said_is_read_in_order_and_what_is_dropped_is_counted() {
    for (max, waiting_max) in [(1, 1), (1, 2), (4, 8)] {
        check(move || told_is_read(max, waiting_max, clears_first));
    }
}

#[test]
fn a_reader_that_clears_behind_what_it_reads_is_found() {
    let clears_last: Read = |eventfd, receiver| {
        let mut seen = Vec::new();
        while seen.last() != Some(&News::Last) {
            eventfd.readable();
            seen.extend(std::iter::from_fn(|| receiver.try_receive().ok()));
            eventfd.clear();
        }
        seen
    };
    loses_a_wake_up(move || told_is_read(4, 8, clears_last));
}

/// A worker that counts twice a turn hands a snapshot out between turns; who reads sees both counts
/// of one turn.
fn snapshot_is_whole(
    hand_out: impl Fn(u32, u32) + Send + 'static,
    look: impl Fn() -> Option<(u32, u32)>,
) {
    let worker = thread::spawn(move || (1..=2).for_each(|count| hand_out(count, count)));
    for _ in 0..2 {
        if let Some((one, other)) = look() {
            assert_eq!(one, other);
        }
    }
    worker.join().unwrap();
}

#[test]
fn a_snapshot_is_of_one_moment() {
    check(|| {
        let (sender, receiver) = channel(1);
        let outbox = Mutex::new(Outbox::new(sender, Eventfd::new(), 1));
        let hand_out = move |one, other| {
            let mut outbox = outbox.lock().unwrap();
            outbox.offer(Box::new((one, other)));
            outbox.flush();
        };
        snapshot_is_whole(hand_out, || receiver.try_receive().ok().map(|snapshot| *snapshot));
    });
}

#[test]
fn a_snapshot_of_shared_counters_is_found() {
    let what = goes_wrong(|| {
        let counters = Arc::new((AtomicU32::new(0), AtomicU32::new(0)));
        let shared = Arc::clone(&counters);
        let hand_out = move |one, other| {
            shared.0.store(one, Ordering::SeqCst);
            shared.1.store(other, Ordering::SeqCst);
        };
        let load = |counter: &AtomicU32| counter.load(Ordering::SeqCst);
        snapshot_is_whole(hand_out, move || Some((load(&counters.0), load(&counters.1))));
    });
    assert!(what.contains("left == right"), "{what}");
}
