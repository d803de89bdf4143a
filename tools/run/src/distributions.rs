//! Distributions of a run that goes on, so that they can be added up elsewhere before it ends.
//!
//! A histogram takes the same memory whatever is in it, and a coordinator keeps those of every host:
//! here only what was recorded takes any. Buckets are those of the report's histograms, so that
//! nothing is lost on the way there.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use stampede_engine::{Distributions, Measure};
use stampede_hosts::messages::Growth;
use stampede_report::hist::{self, Hist, Samples};
use stampede_report::types::Phases;

/// Most distributions of a host; what has more is not one of ours, which have some sixty at most.
const NAMES_MAX: usize = 256;
/// Longest text of all that is told at once; what finds no room in it is told the next time.
const TOLD_BYTES_MAX: usize = 1 << 20;

/// What the phases of a join are called where only text is seen, in their order.
pub(crate) const PHASE_NAMES: [&str; 6] =
    ["websocket", "signal", "ice", "dtls", "first_packet", "first_keyframe"];

/// What the names of what peers measured begin with.
const MEASURED: &str = "media/";

/// How often each value came.
type Counts = BTreeMap<u64, u64>;

/// Distributions by name: a kind, and which of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LiveDistributions {
    by_name: BTreeMap<String, Counts>,
}

impl LiveDistributions {
    /// Adds one by its name, if there is anything in it. Names are not given twice.
    pub(crate) fn put(&mut self, name: String, histogram: &Histogram<u64>) {
        if !histogram.is_empty() {
            self.by_name.insert(name, counts(histogram));
        }
    }

    /// Adds what peers measured.
    pub(crate) fn put_measured(&mut self, measured: &Distributions) {
        for (measure, histogram) in measured.all() {
            self.put(format!("{MEASURED}{}", measure.name()), histogram);
        }
    }

    /// What peers measured.
    pub(crate) fn measured(&self) -> Distributions {
        let mut all = Distributions::default();
        for (name, counts) in &self.by_name {
            if let Some(histogram) = measure(name).and_then(|measure| all.of(measure)) {
                for (value, count) in counts {
                    histogram.saturating_record_n(*value, *count);
                }
            }
        }
        all
    }

    /// One in milliseconds, by its name.
    pub(crate) fn ms(&self, name: &str) -> Option<Hist> {
        samples(self.by_name.get(name)?).as_ms()
    }

    /// Those of the phases of a join, by what their names begin with.
    pub(crate) fn phases_ms(&self, of: &str) -> Phases {
        let [websocket, signal, ice, dtls, first_packet, first_keyframe] =
            PHASE_NAMES.map(|name| self.ms(&format!("{of}/{name}")));
        Phases { websocket, signal, ice, dtls, first_packet, first_keyframe }
    }

    /// Takes out what was measured by the clocks of two hosts: latencies of data messages, and with
    /// `media` those of media too.
    pub fn forget_latency(&mut self, media: bool) {
        self.by_name.retain(|name, _| match measure(name) {
            Some(Measure::DataLatency(_)) => false,
            Some(
                Measure::VideoLatency | Measure::VideoLatencyOfHeight(_) | Measure::AudioLatency,
            ) => !media,
            _ => true,
        });
    }

    /// What has to be told to whoever was told `told`, and what that one knows then.
    pub fn news(&self, told: &Self) -> (BTreeMap<String, Growth>, Self) {
        let (mut news, mut told) = (BTreeMap::new(), told.clone());
        let mut bytes = 0;
        let mut tell = |name: &String, growth: Growth| {
            bytes += name.len() + growth.hdr.len();
            let fits = bytes <= TOLD_BYTES_MAX;
            if fits {
                news.insert(name.clone(), growth);
            }
            fits
        };
        told.by_name.retain(|name, _| {
            let over = !self.by_name.contains_key(name);
            !(over && tell(name, Growth { anew: true, hdr: String::new() }))
        });
        for (name, now) in &self.by_name {
            let before = told.by_name.get(name);
            if before == Some(now) {
                continue;
            }
            // A window that begins anew has less of something.
            let grown = before.and_then(|before| since(now, before));
            let anew = grown.is_none();
            let all = samples(grown.as_ref().unwrap_or(now));
            let Some(hdr) = hist::encode(all.histogram()) else { continue };
            if tell(name, Growth { anew, hdr }) {
                told.by_name.insert(name.clone(), now.clone());
            }
        }
        (news, told)
    }

    /// Takes in what [`news`](Self::news) of another host said: all of it, or nothing.
    ///
    /// # Errors
    /// It can't be read, in words.
    pub fn take(&mut self, news: &BTreeMap<String, Growth>) -> Result<(), String> {
        let is_new = |(name, growth): &(&String, &Growth)| {
            !growth.hdr.is_empty() && !self.by_name.contains_key(*name)
        };
        if self.by_name.len() + news.iter().filter(is_new).count() > NAMES_MAX {
            return Err(format!("more than {NAMES_MAX} histograms"));
        }
        let mut read = Vec::with_capacity(news.len());
        for (name, Growth { anew, hdr }) in news {
            let grown = match hdr.is_empty() {
                true => Counts::new(),
                false => counts(&hist::decode(hdr).ok_or("a histogram that can't be read")?),
            };
            read.push((name, *anew, grown));
        }
        for (name, anew, grown) in read {
            if anew {
                self.by_name.remove(name);
            }
            if grown.is_empty() {
                continue;
            }
            let own = self.by_name.entry(name.clone()).or_default();
            for (value, count) in grown {
                let sum = own.entry(value).or_default();
                *sum = sum.saturating_add(count);
            }
        }
        Ok(())
    }
}

/// What peers measured by this name, if they did.
fn measure(name: &str) -> Option<Measure> {
    name.strip_prefix(MEASURED).and_then(Measure::named)
}

fn counts(histogram: &Histogram<u64>) -> Counts {
    let recorded = histogram.iter_recorded();
    recorded.map(|value| (value.value_iterated_to(), value.count_at_value())).collect()
}

fn samples(counts: &Counts) -> Samples {
    let mut samples = Samples::new();
    counts.iter().for_each(|(value, count)| samples.record_micros(*value, *count));
    samples
}

/// What came since; `None` if something was more before.
fn since(now: &Counts, before: &Counts) -> Option<Counts> {
    let mut grown = now.clone();
    for (value, count) in before {
        let own = grown.get_mut(value)?;
        *own = own.checked_sub(*count)?;
    }
    grown.retain(|_, count| *count > 0);
    Some(grown)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use stampede_core::data::DataKind;

    use super::*;

    fn of(values_ms: &[u64]) -> LiveDistributions {
        let mut samples = Samples::new();
        values_ms.iter().for_each(|ms| samples.record(Duration::from_millis(*ms)));
        let mut all = LiveDistributions::default();
        all.put("join/dtls".to_owned(), samples.histogram());
        all
    }

    #[test]
    fn what_is_told_second_by_second_comes_to_the_same() {
        let (mut told, mut sum) = (LiveDistributions::default(), LiveDistributions::default());
        let mut grew = Vec::new();
        // The third is of a window that began anew, and the fourth of one with nothing in it yet.
        for values in [&[3, 40][..], &[3, 3, 40, 900], &[3, 7], &[], &[7], &[7]] {
            let now = of(values);
            let news;
            (news, told) = now.news(&told);
            grew.push(news.values().next().map(|growth| growth.anew));
            sum.take(&news).unwrap();
            assert_eq!((&sum, &told), (&now, &now), "{values:?}");
        }
        assert_eq!(grew, [Some(true), Some(false), Some(true), Some(true), Some(true), None]);
        let values: Vec<u64> = (1..=500).map(|value| value * value).collect();
        let mut exact = Samples::new();
        values.iter().for_each(|ms| exact.record(Duration::from_millis(*ms)));
        sum.take(&of(&values).news(&told).0).unwrap();
        assert_eq!(sum.ms("join/dtls"), exact.as_ms());
        assert_eq!(sum.phases_ms("join").dtls, exact.as_ms());
    }

    #[test]
    fn what_was_measured_comes_back_as_it_was() {
        let mut measured = Distributions::default();
        measured.of(Measure::VideoLatency).unwrap().record_n(48_211, 900).unwrap();
        measured.of(Measure::VideoLatencyOfHeight(720)).unwrap().record(48_211).unwrap();
        // Of two digits.
        for value in 1..400 {
            measured.of(Measure::PublishLateness).unwrap().record(value * value).unwrap();
        }
        let (mut all, mut sum) = (LiveDistributions::default(), LiveDistributions::default());
        all.put_measured(&measured);
        sum.take(&all.news(&LiveDistributions::default()).0).unwrap();
        let back = sum.measured();
        for ((measure, one), (_, other)) in measured.all().zip(back.all()) {
            assert_eq!(Hist::of_micros_as_ms(one), Hist::of_micros_as_ms(other), "{measure:?}");
        }
        assert_eq!(back.video_latency_by_height_us[0].1.len(), 1);
    }

    #[test]
    fn latencies_by_unknown_clocks_are_told_not_to_count() {
        let mut measured = Distributions::default();
        let data = Measure::DataLatency(DataKind::Lossy);
        let of_height = Measure::VideoLatencyOfHeight(720);
        let media = [Measure::VideoLatency, of_height, Measure::AudioLatency];
        let own = [Measure::VideoJitter, Measure::RpcRoundTrip];
        for measure in own.into_iter().chain(media).chain([data]) {
            measured.of(measure).unwrap().record(48_211).unwrap();
        }
        let mut now = LiveDistributions::default();
        now.put_measured(&measured);
        let (mut told, mut sum) = (LiveDistributions::default(), LiveDistributions::default());
        let mut has = |now: &LiveDistributions, measure: Measure| {
            let news;
            (news, told) = now.news(&told);
            sum.take(&news).unwrap();
            !sum.measured().of(measure).unwrap().is_empty()
        };
        assert!(own.into_iter().chain(media).chain([data]).all(|one| has(&now, one)));
        now.forget_latency(false);
        assert!(!has(&now, data) && own.into_iter().chain(media).all(|one| has(&now, one)));
        now.forget_latency(true);
        assert!(!media.into_iter().any(|one| has(&now, one)));
        assert!(own.into_iter().all(|one| has(&now, one)));
    }

    #[test]
    fn what_finds_no_room_is_told_the_next_time() {
        let mut full = Samples::new();
        let mut value: u64 = 1;
        while value < 600_000_000 {
            full.record_micros(value, value % 999_983 + 1);
            value += 1 + value / 2_048;
        }
        let mut all = LiveDistributions::default();
        (0..40).for_each(|number| all.put(format!("full/{number}"), full.histogram()));
        let (mut told, mut sum) = (LiveDistributions::default(), LiveDistributions::default());
        let mut seconds = 0;
        while sum != all {
            let news;
            (news, told) = all.news(&told);
            let bytes: usize = news.values().map(|growth| growth.hdr.len()).sum();
            assert!(bytes > 0 && bytes <= TOLD_BYTES_MAX, "{bytes}");
            sum.take(&news).unwrap();
            seconds += 1;
        }
        assert!(seconds > 1, "all of it found room");
    }

    #[test]
    fn what_is_not_ours_is_refused() {
        let mut sum = LiveDistributions::default();
        let growth = |hdr: &str| Growth { anew: false, hdr: hdr.to_owned() };
        assert!(sum.take(&[("a".to_owned(), growth("AAAA"))].into()).is_err());
        // Of 38 bytes that say that 4 GB follow.
        let large = growth("HISTFAAAAB54nJNpmSz8HwgYIIAZSjOCCOXDbgz2HyACANBQB6I=");
        assert!(sum.take(&[("a".to_owned(), large)].into()).is_err());
        let mut fine = Histogram::<u64>::new(5).unwrap();
        fine.record(3).unwrap();
        let fine = growth(&hist::encode(&fine).unwrap());
        assert!(sum.take(&[("a".to_owned(), fine)].into()).is_err());
        let mut one = Samples::new();
        one.record_micros(3, 1);
        let one = hist::encode(one.histogram()).unwrap();
        // Of what can't be read in part nothing is taken.
        let half = [("a".to_owned(), growth(&one)), ("b".to_owned(), growth("AAAA"))];
        assert!(sum.take(&half.into()).is_err());
        assert_eq!(sum, LiveDistributions::default());
        let many = |from: usize, to| (from..to).map(|name| (name.to_string(), growth(&one)));
        assert_eq!(sum.take(&many(0, NAMES_MAX).collect()), Ok(()));
        assert!(sum.take(&many(NAMES_MAX, NAMES_MAX + 1).collect()).is_err());
        assert_eq!(sum.take(&many(0, 1).collect()), Ok(()));
    }
}
