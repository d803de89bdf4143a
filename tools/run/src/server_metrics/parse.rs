//! The Prometheus text format (version 0.0.4, and what OpenMetrics has in common with it), as far
//! as scraping needs it: samples with name, labels and value.

/// One sample.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sample<'a> {
    /// Metric name.
    pub name: &'a str,
    /// What stands between the braces; empty without labels.
    labels: &'a str,
    /// Its value.
    pub value: f64,
}

impl Sample<'_> {
    /// True if a label has this value. Values with escapes never match.
    pub(super) fn has(&self, label: &str, value: &str) -> bool {
        let mut rest = self.labels;
        while let Some((name, after)) = rest.split_once("=\"") {
            let Some(end) = end_of_value(after) else { return false };
            if name.trim_matches([',', ' ']) == label && &after[..end] == value {
                return true;
            }
            rest = &after[end + 1..];
        }
        false
    }
}

/// Where the closing quote of a label value is.
fn end_of_value(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })
}

/// All samples of a text. Comments, and lines that can't be read, are passed over.
pub(super) fn samples(text: &str) -> impl Iterator<Item = Sample<'_>> {
    text.lines().map(str::trim).filter(|line| !line.starts_with('#')).filter_map(sample)
}

fn sample(line: &str) -> Option<Sample<'_>> {
    let end = line.find(['{', ' ', '\t'])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = "";
    if let Some(inside) = rest.strip_prefix('{') {
        let close = end_of_labels(inside)?;
        labels = &inside[..close];
        rest = &inside[close + 1..];
    }
    let value = rest.split_ascii_whitespace().next()?.parse().ok()?;
    (!name.is_empty()).then_some(Sample { name, labels, value })
}

/// Where the closing brace is; one inside of a value does not count.
fn end_of_labels(text: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    text.bytes().position(|byte| {
        if byte == b'"' && !escaped {
            quoted = !quoted;
        }
        escaped = byte == b'\\' && !escaped;
        byte == b'}' && !quoted
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_with_and_without_labels() {
        let text = "# HELP a b\n# TYPE a counter\na 1\n\
                    b_total{x=\"1\",y=\"a } \\\" b\",z=\"2\"} 2.5e3 1700000000\n\
                    c{} NaN\nd{} +Inf\n# EOF\n";
        let found: Vec<_> = samples(text).collect();
        let names: Vec<_> = found.iter().map(|sample| sample.name).collect();
        assert_eq!(names, ["a", "b_total", "c", "d"]);
        assert_eq!((found[0].value, found[1].value), (1.0, 2_500.0));
        assert!(found[2].value.is_nan() && found[3].value.is_infinite());
        assert!(found[1].has("x", "1") && found[1].has("z", "2"));
        assert!(!found[1].has("x", "2") && !found[1].has("y", "a") && !found[0].has("x", "1"));
    }

    #[test]
    fn broken_lines_are_passed_over() {
        let text = "a\na{\na{x=\"}\n{x=\"1\"} 3\na{x=\"1\"}\na one\n\u{fffd} 1 2\nok 7\n";
        let found: Vec<_> = samples(text).map(|sample| sample.value).collect();
        assert_eq!(found, [1.0, 7.0]);
        assert!(!Sample { name: "a", labels: "x=\"\\", value: 0.0 }.has("x", ""));
    }
}
