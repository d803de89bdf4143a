//! What holds for every spec and seed.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

use std::time::{Duration, Instant};

use proptest::prelude::*;
use stampede_impair::{Class, Fate, Impairment, Loss, RATE_QUEUE_MAX, REORDER_HOLD, Spec, seeded};

const SPACING: Duration = Duration::from_millis(5);

fn model(spec: &str, seed: u64, start: Instant) -> Impairment {
    let spec: Spec = spec.parse().unwrap();
    Impairment::new(&spec, seed, "sub-1-3", start)
}

/// Fates of `count` RTP packets of 1,000 bytes, one every [`SPACING`].
fn fates(spec: &str, seed: u64, count: u32, start: Instant) -> (Vec<Fate>, Impairment) {
    let mut model = model(spec, seed, start);
    let fates = (0..count).map(|n| model.decide(start + n * SPACING, Class::Rtp, 1_000)).collect();
    (fates, model)
}

fn share() -> impl Strategy<Value = f64> {
    (1u32..=300).prop_map(|tenths| f64::from(tenths) / 10.0)
}

/// Any combination of keys.
fn spec() -> impl Strategy<Value = String> {
    let loss = proptest::option::of((share(), 1u32..20))
        .prop_map(|loss| loss.map(|(loss, burst)| format!("loss={loss}%,burst={burst}")));
    let part = |key: &'static str, values: BoxedStrategy<String>| {
        proptest::option::of(values).prop_map(move |v| v.map(|v| format!("{key}={v}")))
    };
    let ms = || (0u32..200).prop_map(|ms| format!("{ms}ms")).boxed();
    let percent = || share().prop_map(|share| format!("{share}%")).boxed();
    let rate = (100u32..3_000).prop_map(|kbps| format!("{kbps}kbps")).boxed();
    let outage = (1u32..500, 0u32..2_000).prop_map(|(l, s)| format!("{l}ms@{s}ms")).boxed();
    (
        loss,
        part("delay", ms()),
        part("jitter", ms()),
        part("reorder", percent()),
        part("duplicate", percent()),
        part("rate", rate),
        part("outage", outage),
    )
        .prop_map(|(a, b, c, d, e, f, g)| {
            let parts: Vec<String> = [a, b, c, d, e, f, g].into_iter().flatten().collect();
            if parts.is_empty() { "delay=0ms".to_owned() } else { parts.join(",") }
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn loss_and_burst_length_are_as_asked(loss in 0.005f64..0.3, burst in 1u32..8, seed: u64) {
        let mut model = Loss::new(loss, burst, seeded(seed, "")).unwrap();
        let (mut lost, mut runs, mut last) = (0u32, 0u32, false);
        let total = 400_000;
        for _ in 0..total {
            let now = model.loses();
            lost += u32::from(now);
            runs += u32::from(now && !last);
            last = now;
        }
        let share = f64::from(lost) / f64::from(total);
        prop_assert!((share - loss).abs() < 0.1 * loss + 0.002, "share {share} for {loss}");
        let length = f64::from(lost) / f64::from(runs);
        // Independent losses form runs of 1 / (1 - p).
        let expected = if burst == 1 { 1.0 / (1.0 - loss) } else { f64::from(burst) };
        prop_assert!((length - expected).abs() < 0.15 * expected, "{length} for {expected}");
    }

    #[test]
    fn shares_of_reordering_and_duplication_are_as_asked(
        percent in 0.5f64..30.0, seed: u64,
    ) {
        let spec = format!("reorder={percent}%,duplicate={percent}%");
        let (_, model) = fates(&spec, seed, 100_000, Instant::now());
        for count in [model.counts().reordered, model.counts().duplicated] {
            let got = count as f64 / 1_000.0;
            prop_assert!((got - percent).abs() < 0.1 * percent + 0.1, "{got} for {percent}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn the_same_seed_decides_the_same(spec in spec(), seed: u64) {
        let start = Instant::now();
        let (one, model) = fates(&spec, seed, 500, start);
        let (two, again) = fates(&spec, seed, 500, start);
        prop_assert_eq!(one, two);
        prop_assert_eq!(model.counts(), again.counts());
    }

    #[test]
    fn every_packet_is_dropped_or_delivered_and_counted_once(spec in spec(), seed: u64) {
        let start = Instant::now();
        let (fates, model) = fates(&spec, seed, 500, start);
        let (mut dropped, mut late, mut twice) = (0, 0, 0);
        for (n, fate) in fates.iter().enumerate() {
            let now = start + n as u32 * SPACING;
            match fate {
                Fate::Drop => dropped += 1,
                Fate::Deliver { at, twice: copied, .. } => {
                    prop_assert!(*at >= now, "early");
                    late += u64::from(*at > now);
                    twice += u64::from(*copied);
                }
            }
        }
        let counts = model.counts();
        let counted = (counts.dropped, counts.delayed, counts.duplicated);
        prop_assert_eq!(counted, (dropped, late, twice));
        prop_assert_eq!(counts.other_dropped, 0);
    }

    #[test]
    fn order_is_kept_unless_reordering_is_asked_for(spec in spec(), seed: u64) {
        let start = Instant::now();
        let parsed: Spec = spec.parse().unwrap();
        let (fates, model) = fates(&spec, seed, 500, start);
        let at = fates.iter().filter_map(|fate| match fate {
            Fate::Deliver { at, .. } => Some(*at),
            Fate::Drop => None,
        });
        let at: Vec<Instant> = at.collect();
        let overtaken = at.windows(2).filter(|pair| pair[1] < pair[0]).count() as u64;
        prop_assert!(overtaken <= model.counts().reordered);
        if parsed.reorder == 0.0 {
            prop_assert_eq!(overtaken, 0);
        }
    }

    #[test]
    fn no_wait_is_longer_than_what_was_asked_for(spec in spec(), seed: u64) {
        let start = Instant::now();
        let parsed: Spec = spec.parse().unwrap();
        let wait_max = parsed.delay + parsed.jitter + REORDER_HOLD + RATE_QUEUE_MAX;
        // What waits behind a late packet waits for it too, but not longer than it did.
        let (fates, _) = fates(&spec, seed, 500, start);
        for (n, fate) in fates.iter().enumerate() {
            if let Fate::Deliver { at, .. } = fate {
                prop_assert!(*at - (start + n as u32 * SPACING) <= wait_max);
            }
        }
    }

    #[test]
    fn losses_do_not_depend_on_the_other_impairments(seed: u64) {
        let start = Instant::now();
        let dropped = |spec: &str| -> Vec<bool> {
            fates(spec, seed, 500, start).0.iter().map(|fate| *fate == Fate::Drop).collect()
        };
        prop_assert_eq!(
            dropped("loss=10%,burst=3"),
            dropped("loss=10%,burst=3,delay=20ms,jitter=10ms,reorder=5%,duplicate=5%")
        );
    }

    #[test]
    fn any_text_is_a_spec_or_a_one_line_error(text in "[a-z0-9=%,@.]{0,40}") {
        if let Err(error) = text.parse::<Spec>() {
            prop_assert!(!error.to_string().contains('\n'));
        }
    }
}
