//! Seeds: so many that CI has time for, or as many as are asked for.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests may panic")]

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use stampede_sim::Plan;
use stampede_sim::check::{Played, check, play};

/// Seeds that are played unless another number is asked for.
const SEEDS: u64 = 1_000;
/// Failures after which no further seed is begun.
const FAILURES_MAX: usize = 5;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// How often who was named for which faults, with a ledger and without one.
type Named = BTreeMap<(String, String), u64>;

/// What is wrong with a seed, if anything is.
fn wrong(seed: u64, named: &Mutex<Named>) -> Option<String> {
    let plan = Plan::of(seed);
    let names = plan.names();
    let found = catch_unwind(AssertUnwindSafe(|| match check(plan) {
        Ok(Played { verdict, foreign, .. }) => {
            let who = format!("{:?} {:?}", verdict.fault, foreign.fault);
            *named.lock().unwrap().entry((names.clone(), who)).or_default() += 1;
            None
        }
        Err(wrongs) => Some(wrongs),
    }))
    .unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Some(format!("it panicked: {}", text.unwrap_or_default()))
    });
    let replay = format!("STAMPEDE_SIM_SEED={seed} cargo test --workspace --test seeds");
    found.map(|wrongs| format!("seed {seed} ({names}):\n{wrongs}\nreplay: {replay}\n"))
}

#[test]
fn what_the_product_says_of_a_run_is_true() {
    if let Some(seed) = number("STAMPEDE_SIM_SEED") {
        let played = play(Plan::of(seed));
        played.world.trace.iter().filter(|it| it.kind != "rtp").for_each(|it| eprintln!("{it}"));
        eprintln!("{:?}\n{:#?}", played.world.plan, played.verdict);
        let wrong = wrong(seed, &Mutex::default());
        assert!(wrong.is_none(), "{}", wrong.unwrap_or_default());
        return;
    }
    let first = number("STAMPEDE_SIM_FIRST").unwrap_or(0);
    let seeds = first..first + number("STAMPEDE_SIM_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(seeds.start);
    let failures = Mutex::new(Vec::new());
    let failures_max = number("STAMPEDE_SIM_FAILURES").map_or(FAILURES_MAX, |max| max as usize);
    let named = Mutex::new(Named::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while failures.lock().unwrap().len() < failures_max {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    if let Some(wrong) = wrong(seed, &named) {
                        failures.lock().unwrap().push(wrong);
                    }
                }
            });
        }
    });
    for ((faults, who), count) in named.into_inner().unwrap() {
        eprintln!("{count:>4} {faults}: {who}");
    }
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 0..15 {
        let [one, other] = [(); 2].map(|()| play(Plan::of(seed)).world.trace);
        assert!(one.len() > 500, "{} things happened in seed {seed}", one.len());
        let differs = one.iter().zip(&other).find(|(one, other)| one != other);
        assert!(differs.is_none() && one.len() == other.len(), "seed {seed}: {differs:?}");
    }
}
