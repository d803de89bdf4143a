//! A promise over the report: `KEY OP NUMBER`, joined by `&&`.

use serde_json::Value;

use crate::flags::values;

/// Longer ones first: `<=` begins with `<`.
const OPS: [&str; 6] = ["<=", ">=", "==", "!=", "<", ">"];

/// One comparison.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Comparison {
    /// Key of the JSON report, parts joined by dots.
    pub key: String,
    op: &'static str,
    limit: f64,
}

/// Comparisons that must all hold.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Promise(pub Vec<Comparison>);

impl Promise {
    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        text.split("&&").map(comparison).collect::<Result<_, _>>().map(Self)
    }

    /// Each figure and whether all of them hold; one without a value does not.
    pub(crate) fn judge(&self, report: &Value) -> (Vec<(String, Option<f64>)>, bool) {
        let mut kept = true;
        let figure = |one: &Comparison| {
            let pointer = format!("/{}", one.key.replace('.', "/"));
            let value = report.pointer(&pointer).and_then(Value::as_f64);
            kept &= value.is_some_and(|value| holds(value, one.op, one.limit));
            (one.key.clone(), value)
        };
        let figures = self.0.iter().map(figure).collect();
        (figures, kept)
    }
}

fn comparison(text: &str) -> Result<Comparison, String> {
    let text = text.trim();
    let found = OPS.iter().filter_map(|op| Some((text.find(op)?, *op)));
    let (at, op) = found.min_by_key(|(at, _)| *at).ok_or_else(|| {
        format!("'{text}' compares nothing; write it like video.loss_rate<0.001")
    })?;
    let (key, value) = (text[..at].trim(), text[at + op.len()..].trim());
    let limit = if let Ok(number) = value.parse::<f64>() {
        number
    } else if value.ends_with('%') {
        values::percent(value)?
    } else if key.contains("_ms") {
        values::duration(value)?.as_secs_f64() * 1_000.0
    } else {
        return Err(format!("'{value}' after '{key}{op}' is not a number"));
    };
    if key.is_empty() || !limit.is_finite() {
        return Err(format!("'{text}' lacks a side; write it like video.loss_rate<0.001"));
    }
    Ok(Comparison { key: key.to_owned(), op, limit })
}

fn holds(value: f64, op: &str, limit: f64) -> bool {
    match op {
        "<" => value < limit,
        "<=" => value <= limit,
        ">" => value > limit,
        ">=" => value >= limit,
        "==" => value == limit,
        _ => value != limit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_comparisons_must_hold_and_unknown_does_not() {
        let report = serde_json::json!({"video": {"loss_rate": 0.0005, "latency_ms": {"p99": null}}});
        let judge = |text: &str| Promise::parse(text).unwrap().judge(&report);
        assert!(judge("video.loss_rate<0.1%").1);
        assert!(!judge("video.loss_rate<0.0001").1);
        let (figures, kept) = judge("video.loss_rate<0.001 && video.latency_ms.p99<400ms");
        assert!(!kept);
        assert_eq!(figures[1], ("video.latency_ms.p99".to_owned(), None));
        for text in ["video.loss_rate", "<5", "a<b", ""] {
            assert!(Promise::parse(text).is_err(), "{text}");
        }
    }
}
