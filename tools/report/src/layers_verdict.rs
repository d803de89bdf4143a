//! What the verdict makes of layers: smaller pictures than those asked for are not what was to be
//! carried.

use super::bounds::LOSS_RATE_MAX;
use super::facts::Facts;
use super::types::Fault;
use super::watch_words::{percent, seconds};

/// What the verdict says of it where it is worth a word: whether the run fails by it, whose fault it
/// is, and what happened.
pub(super) fn judge(facts: &Facts) -> Option<(bool, Fault, String)> {
    let layers = &facts.layers;
    let ratio = layers.lower_ratio.filter(|ratio| *ratio > LOSS_RATE_MAX)?;
    let got = layers.heights.iter().max_by(|a, b| a.shown_s.total_cmp(&b.shown_s))?;
    let what = format!(
        "pictures were smaller than subscribers asked for and publishers offered in {} of the time \
         ({} of {}; mostly {})",
        percent(ratio),
        seconds(layers.lower_s),
        seconds(layers.asked_s),
        got.name,
    );
    if let Some(excused) = &layers.excused {
        return Some((false, Fault::None, format!("{what}; {excused}")));
    }
    let fails = facts.layers_bounded && layers.is_mostly_lower();
    Some(match (fails, facts.ledger.is_some()) {
        (false, _) => (false, Fault::None, what),
        (true, true) => (true, Fault::Server, format!("server: {what}")),
        (true, false) => {
            let text = format!("unknown: {what}; the server's choice, or the way's to them");
            (true, Fault::Unknown, text)
        }
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use stampede_core::watch::LayerTime;

    use super::*;
    use crate::facts::LedgerFacts;
    use crate::layers::LayerSums;

    fn time(height: u16, seconds: u64) -> LayerTime {
        let played = Duration::from_secs(seconds);
        LayerTime { height: Some(height), temporal: None, played, frames: 25 * seconds }
    }

    #[test]
    fn a_run_fails_by_it_only_where_nobody_wanted_it_so() {
        let facts = |lower: u64, excused| {
            let mut sums = LayerSums::default();
            let shown = [time(180, lower), time(720, 100 - lower)];
            sums.add(&shown, Some(720));
            Facts { layers: sums.section(excused), layers_bounded: true, ..Facts::default() }
        };
        assert_eq!(judge(&facts(1, None)), None);
        let (fails, fault, text) = judge(&facts(40, None)).unwrap();
        assert!(!fails && fault == Fault::None && text.contains("40.00 % of the time"), "{text}");
        let (fails, fault, text) = judge(&facts(90, None)).unwrap();
        assert!(fails && fault == Fault::Unknown && text.contains("mostly 180p"), "{text}");
        let embedded = Facts { ledger: Some(LedgerFacts::default()), ..facts(90, None) };
        assert_eq!(judge(&embedded).unwrap().1, Fault::Server);
        let (fails, _, text) = judge(&facts(90, Some("it was so on purpose"))).unwrap();
        assert!(!fails && text.ends_with("; it was so on purpose"), "{text}");
        let own = Facts { layers_bounded: false, ..facts(90, None) };
        assert!(!judge(&own).unwrap().0, "a threshold of the user's own takes its place");
    }
}
