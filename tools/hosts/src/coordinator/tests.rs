//! The coordinator in virtual time.

use super::*;

const S: Duration = Duration::from_secs(1);
const UNIX_NS: u64 = 1_700_000_000_000_000_000;

fn coordinator(hosts: usize, hosts_min: usize) -> Coordinator {
    let share = Share {
        words: vec!["--url=ws://h".to_owned()],
        scenario: None,
        run_id: "ab".to_owned(),
        number: 0,
        weights: Vec::new(),
    };
    let options = Options { hosts, hosts_min, gather: 60 * S, participants: 100 };
    Coordinator::new(options, Plan { share }, Duration::ZERO)
}

fn advance(coordinator: &mut Coordinator, at: Duration) -> Vec<Output> {
    coordinator.advance(at, UNIX_NS + at.as_nanos() as u64)
}

/// Everybody that is there was heard of.
fn all_heard(coordinator: &mut Coordinator, at: Duration) {
    (0..coordinator.hosts().len()).for_each(|host| coordinator.heard(host, at));
}

/// Two hosts that wait at the start.
fn started() -> Coordinator {
    let mut two = coordinator(2, 2);
    assert_eq!(two.admit(Duration::ZERO, "a", None), Ok(0));
    assert!(advance(&mut two, Duration::ZERO).is_empty());
    assert_eq!(two.admit(S, "b", Some(9)), Ok(1));
    let shares = advance(&mut two, S);
    let [Output::Send(0, ToWorker::Share(a)), Output::Send(1, ToWorker::Share(b))] = &shares[..]
    else {
        panic!("{shares:?}")
    };
    assert_eq!((a.number, b.number), (0, 1));
    assert_eq!((&a.weights, &b.weights), (&vec![1, 1], &vec![1, 1]), "one does not know");
    for host in 0..2 {
        two.ready(host, Estimate::default());
        two.arrived(host, Point::Start);
    }
    two
}

#[test]
fn no_more_hosts_are_let_in_than_the_run_asks_for() {
    let mut many = coordinator(HOSTS_MAX, HOSTS_MAX);
    for number in 0..HOSTS_MAX {
        assert_eq!(many.admit(Duration::ZERO, "h", None), Ok(number));
    }
    assert_eq!(many.admit(Duration::ZERO, "h", None), Err(Refusal::Full(HOSTS_MAX)));
}

#[test]
fn everybody_starts_at_one_moment() {
    let mut two = started();
    let at_ns = UNIX_NS + 3_000_000_000;
    let go = |host| Output::Send(host, ToWorker::Go { point: Point::Start, at_ns });
    assert_eq!(advance(&mut two, 2 * S), [go(0), go(1)]);
    two.arrived(0, Point::Published);
    assert!(advance(&mut two, 3 * S).is_empty(), "the other is not there yet");
    two.arrived(1, Point::Published);
    let both = advance(&mut two, 3 * S);
    assert!(matches!(
        both[..],
        [Output::Send(0, ToWorker::Go { point: Point::Published, .. }), Output::Send(1, _)]
    ));
    // With stages nobody comes to the window: whoever is further is there too.
    for host in 0..2 {
        two.arrived(host, Point::SubscribersLeft);
    }
    let points = advance(&mut two, 4 * S).into_iter().filter_map(|output| match output {
        Output::Send(0, ToWorker::Go { point, .. }) => Some(point),
        _ => None,
    });
    assert!(points.eq([Point::Ramp, Point::Measure, Point::SubscribersLeft]));
    for host in 0..2 {
        assert!(!two.reported(host), "nobody has said that one comes");
        two.reporting(host, 4 * S, Estimate::default());
        assert!(two.reported(host));
    }
    assert_eq!(advance(&mut two, 4 * S), [Output::Finished(Outcome::Over)]);
    assert!(advance(&mut two, 99 * S).is_empty());
}

#[test]
fn weights_are_what_hosts_carry_if_all_of_them_know() {
    let mut two = coordinator(2, 2);
    two.admit(S, "a", Some(300)).unwrap();
    two.admit(S, "b", Some(100)).unwrap();
    advance(&mut two, S);
    assert_eq!(two.weights(), [300, 100]);
}

#[test]
fn too_few_hosts_end_it_when_the_time_is_over() {
    let mut three = coordinator(3, 3);
    three.admit(Duration::ZERO, "a", None).unwrap();
    three.heard(0, 59 * S);
    assert!(advance(&mut three, 59 * S).is_empty());
    let ended = advance(&mut three, 60 * S);
    let [Output::Send(0, ToWorker::Refused { why }), Output::Finished(outcome)] = &ended[..] else {
        panic!("{ended:?}")
    };
    assert!(why.contains("1 of 3"), "{why}");
    assert_eq!(outcome, &Outcome::TooFew { came: 1 });

    let mut three = coordinator(3, 2);
    for name in ["a", "b"] {
        three.admit(58 * S, name, None).unwrap();
    }
    let begun = advance(&mut three, 60 * S);
    assert!(matches!(begun[..], [Output::Say(_), Output::Send(0, _), Output::Send(1, _)]));
    assert_eq!(three.weights().len(), 2);
    assert_eq!(three.admit(61 * S, "c", None), Err(Refusal::Begun(2)));
}

#[test]
fn who_comes_late_comes_back_or_is_one_too_many_is_refused() {
    let mut two = coordinator(2, 1);
    two.admit(S, "a", None).unwrap();
    two.admit(S, "b", None).unwrap();
    assert_eq!(two.admit(S, "c", None), Err(Refusal::Full(2)));
    // One that went away while others were waited for leaves its place.
    two.gone(0, "closed");
    assert_eq!(two.admit(S, "a", None), Ok(2));
    let shares = advance(&mut two, S);
    assert!(matches!(shares[..], [Output::Send(1, _), Output::Send(2, _)]), "{shares:?}");
    two.gone(1, "closed");
    let refusal = two.admit(2 * S, "b", None).unwrap_err();
    assert!(refusal.to_string().contains("has begun"), "{refusal}");
}

#[test]
fn a_host_that_falls_silent_is_lost_and_holds_nobody_up() {
    let mut two = started();
    advance(&mut two, 2 * S);
    two.arrived(0, Point::Published);
    two.heard(0, 6 * S);
    two.heard(1, 2 * S);
    assert!(advance(&mut two, 6 * S).is_empty());
    two.heard(0, 7 * S);
    let lost = advance(&mut two, 7 * S);
    let [Output::Close(1), Output::Send(0, ToWorker::Go { point: Point::Published, .. })] =
        &lost[..]
    else {
        panic!("{lost:?}")
    };
    assert!(two.hosts()[1].lost().unwrap().contains("5s"), "{:?}", two.hosts()[1]);
    // Whatever it still says.
    two.reporting(1, 7 * S, Estimate::default());
    assert!(!two.reported(1));
    two.reporting(0, 8 * S, Estimate::default());
    two.reported(0);
    assert_eq!(advance(&mut two, 8 * S), [Output::Finished(Outcome::Over)]);
}

#[test]
fn when_all_are_lost_it_is_over() {
    let mut two = started();
    advance(&mut two, 2 * S);
    two.gone(0, "connection reset");
    two.gone(1, "connection reset");
    assert_eq!(advance(&mut two, 3 * S), [Output::Finished(Outcome::Over)]);
    assert!(two.sharing().all(|(_, host)| host.lost() == Some("connection reset")));
}

#[test]
fn what_a_host_lacks_ends_it_before_anybody_joins() {
    let begun = || {
        let mut two = coordinator(2, 2);
        two.admit(S, "a", None).unwrap();
        two.admit(S, "b", None).unwrap();
        advance(&mut two, S);
        two
    };
    let outcome = |mut two: Coordinator, at| {
        let out = advance(&mut two, at);
        match out.last() {
            Some(Output::Finished(Outcome::NotStarted { why, bad_configuration })) => {
                (why.clone(), *bad_configuration)
            }
            _ => panic!("{out:?}"),
        }
    };
    let mut lacks = begun();
    lacks.refused(1, "--video clip.ivf: no such file");
    assert_eq!(outcome(lacks, S), ("b: --video clip.ivf: no such file".to_owned(), true));
    let mut died = begun();
    died.gone(0, "closed");
    let (why, config) = outcome(died, S);
    assert!(why.contains("a was lost before") && !config, "{why}");
    let mut slow = begun();
    slow.ready(0, Estimate::default());
    let late = S + PREPARE_MAX;
    all_heard(&mut slow, late);
    assert!(outcome(slow, late).0.contains("b was not ready"));
}

#[test]
fn no_host_is_without_a_participant() {
    let mut many = coordinator(2, 2);
    many.options.participants = 1;
    many.admit(S, "a", None).unwrap();
    many.admit(S, "b", None).unwrap();
    let out = advance(&mut many, S);
    assert!(matches!(
        out.last(),
        Some(Output::Finished(Outcome::NotStarted { bad_configuration: true, .. }))
    ));
}

#[test]
fn a_stop_ends_all_and_nobody_is_waited_for_without_an_end() {
    let mut two = started();
    advance(&mut two, 2 * S);
    two.stop("Ctrl-C", None);
    two.stop("later", Some(("x<1".to_owned(), 2.0)));
    let stop =
        |host| Output::Send(host, ToWorker::Stop { why: "Ctrl-C".to_owned(), crossed: None });
    assert_eq!(advance(&mut two, 3 * S), [stop(0), stop(1)]);
    assert!(advance(&mut two, 3 * S).is_empty(), "once");
    two.reporting(0, 4 * S, Estimate::default());
    two.reported(0);
    let late = 3 * S + ENDING_MAX;
    all_heard(&mut two, late);
    let out = advance(&mut two, late);
    assert_eq!(out, [Output::Close(1), Output::Finished(Outcome::Over)]);
    assert!(two.hosts()[1].lost().unwrap().contains("report did not come"));

    let mut waiting = coordinator(2, 2);
    waiting.admit(S, "a", None).unwrap();
    waiting.stop("Ctrl-C", None);
    let out = advance(&mut waiting, S);
    assert!(matches!(
        out[..],
        [Output::Send(0, ToWorker::Refused { .. }), Output::Finished(Outcome::Stopped)]
    ));
}

#[test]
fn all_are_told_of_a_pause_once_and_of_its_end() {
    let mut two = started();
    two.pause(true);
    let pause = |host, paused| Output::Send(host, ToWorker::Pause { paused });
    let told = advance(&mut two, 2 * S);
    assert_eq!(told[..2], [pause(0, true), pause(1, true)], "{told:?}");
    assert!(advance(&mut two, 2 * S).is_empty());
    two.pause(false);
    assert_eq!(advance(&mut two, 3 * S), [pause(0, false), pause(1, false)]);
}
