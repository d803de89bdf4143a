//! Keys of the report as people write them (`video.latency_ms.p95`): which there are, what unit
//! they are in, which way is better, and their values.

use std::collections::BTreeSet;

use serde_json::Value;

use super::schema;

/// Deepest nesting of the report that is looked into.
const DEPTH_MAX: usize = 16;
/// Names at least this alike (Jaro-Winkler) are suggested.
const ALIKE_MIN: f64 = 0.7;

/// The numeric keys of a report, from its schema.
#[derive(Debug)]
pub struct Keys {
    /// Full names; `*` stands for the names of a map, or of the rows of a list.
    known: BTreeSet<String>,
    /// Names of maps: what comes after them is free.
    maps: BTreeSet<String>,
}

impl Keys {
    /// Of this version's reports.
    pub fn of_schema() -> Self {
        Self::of(&schema::schema())
    }

    /// Of a schema.
    pub fn of(schema: &Value) -> Self {
        let mut keys = Self { known: BTreeSet::new(), maps: BTreeSet::new() };
        keys.collect(schema, schema, "", 0);
        keys
    }

    fn collect(&mut self, root: &Value, node: &Value, name: &str, depth: usize) {
        if depth > DEPTH_MAX {
            return;
        }
        let target = node["$ref"].as_str().and_then(|to| root.pointer(to.strip_prefix('#')?));
        if let Some(target) = target {
            self.collect(root, target, name, depth + 1);
        }
        for list in ["anyOf", "allOf", "oneOf"] {
            for part in node[list].as_array().into_iter().flatten() {
                self.collect(root, part, name, depth);
            }
        }
        if is_number(node) {
            self.known.insert(name.to_owned());
        }
        for (key, part) in node["properties"].as_object().into_iter().flatten() {
            let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
            self.collect(root, part, &name, depth + 1);
        }
        let values = &node["additionalProperties"];
        if is_number(values) {
            self.maps.insert(format!("{name}."));
        } else if values.is_object() {
            self.collect(root, values, &format!("{name}.*"), depth + 1);
        }
        let item = &node["items"];
        let to = item["$ref"].as_str().and_then(|to| root.pointer(to.strip_prefix('#')?));
        if let Some(row) = to.filter(|row| row["properties"]["name"]["type"] == "string") {
            self.collect(root, row, &format!("{name}.*"), depth + 1);
        }
    }

    /// Checks a key.
    ///
    /// # Errors
    /// That there is none such, with the likeliest one that there is.
    pub fn check(&self, key: &str) -> Result<(), String> {
        let in_map = |map: &String| key.len() > map.len() && key.starts_with(map.as_str());
        let alike = |known: &String| {
            let (mut words, mut known) = (key.split('.'), known.split('.'));
            known.all(|known| words.next().is_some_and(|word| known == "*" || known == word))
                && words.next().is_none()
        };
        let wild = || self.known.iter().filter(|known| known.contains('*')).any(alike);
        if self.known.contains(key) || self.maps.iter().any(in_map) || wild() {
            return Ok(());
        }
        let hint = self.suggestion(key).map_or_else(
            || "the keys are those of the JSON report with numbers".to_owned(),
            |near| format!("did you mean '{near}'?"),
        );
        Err(format!("there is no figure '{key}' in the report; {hint}"))
    }

    fn suggestion(&self, key: &str) -> Option<&str> {
        let within = |name: &&String| name.ends_with(&format!(".{key}"));
        if let Some(longer) = self.known.iter().rev().find(within) {
            return Some(longer);
        }
        let alike = self.known.iter().map(|name| (strsim::jaro_winkler(key, name), name));
        let (score, name) = alike.max_by(|a, b| a.0.total_cmp(&b.0))?;
        (score >= ALIKE_MIN).then_some(name.as_str())
    }

    /// All of them, maps left out.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.known.iter().map(String::as_str).filter(|key| !key.contains('*'))
    }
}

fn is_number(node: &Value) -> bool {
    let number = |kind: &Value| matches!(kind.as_str(), Some("integer" | "number"));
    match &node["type"] {
        Value::Array(kinds) => kinds.iter().any(number),
        kind => number(kind),
    }
}

/// The value of a key; `None` where it is null or not there. A kind of error that did not happen
/// happened 0 times.
pub fn value(report: &Value, key: &str) -> Option<f64> {
    match find(report, key) {
        // Where nothing was interrupted, nothing was for longer than no time at all.
        None if was_never_interrupted(report, key) => Some(0.0),
        Some(value) => value.as_f64(),
        None if key.starts_with("join.errors.") && report["join"]["errors"].is_object() => {
            Some(0.0)
        }
        None => None,
    }
}

/// True for a length of interruptions where there were none.
fn was_never_interrupted(report: &Value, key: &str) -> bool {
    let Some((parent, _)) = key.split_once(".length_s.") else { return false };
    let count = format!("{parent}.count");
    parent.ends_with("interruptions") && find(report, &count).is_some_and(|count| *count == 0)
}

/// Names of a map may hold dots themselves, so the rest of the key is tried whole first. The rows of
/// a list are found by their `name`, which may hold dots too.
fn find<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    if let Some(rows) = value.as_array() {
        return rows.iter().find_map(|row| {
            find(row, key.strip_prefix(row["name"].as_str()?)?.strip_prefix('.')?)
        });
    }
    let object = value.as_object()?;
    if let Some(found) = object.get(key) {
        return Some(found);
    }
    let (first, rest) = key.split_once('.')?;
    find(object.get(first)?, rest)
}

/// True if the report, or part of one, has this key, null or not.
pub fn has(report: &Value, key: &str) -> bool {
    find(report, key).is_some()
        || (key.starts_with("join.errors.") && report["join"]["errors"].is_object())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_the_schema_and_near_misses_are_named() {
        let keys = Keys::of_schema();
        for key in [
            "video.loss_rate",
            "video.packets.unrecovered",
            "video.watch_ratio",
            "video.interruptions.causes.publisher_gone.total_s",
            "cohorts.mobile.video.interruptions.subscribers",
            "video.layers.lower_ratio",
            "video.layers.height_px.p50",
            "video.layers.heights.720p.temporal.t2.ratio",
            "cohorts.mobile.video.layers.heights.180p.shown_s",
            "audio.latency_ms.p95",
            "join.failed",
            "join.phases_ms.first_keyframe.p99",
            "join.errors.http_503",
            "generator.cpu_ns_per_packet",
            "server.embedded.measured.packets_sent",
            "server.embedded.totals.packets_sent",
            "publish.upstream_loss_rate",
            "recoveries.full_reconnect.tries",
            "recoveries.ice_restart.ms.p99",
        ] {
            assert_eq!(keys.check(key), Ok(()), "{key}");
        }
        for (key, near) in [
            ("video.los_rate", "'video.loss_rate'"),
            ("loss_rate", "'video.loss_rate'"),
            ("video.latency_ms.p98", "'video.latency_ms.p9"),
            ("join.errors.", "there is no figure"),
            ("video", "there is no figure"),
            ("verdict.result", "there is no figure"),
            ("qqq", "the keys are those"),
        ] {
            let error = keys.check(key).unwrap_err();
            assert!(error.contains(near), "{key}: {error}");
        }
    }

    #[test]
    fn values_are_found_and_null_is_none() {
        let report = serde_json::json!({
            "video": {"loss_rate": null, "packets": {"missing": 3}},
            "join": {"errors": {"server_leave.1": 2}},
        });
        assert_eq!(value(&report, "video.packets.missing"), Some(3.0));
        assert_eq!(value(&report, "join.errors.server_leave.1"), Some(2.0));
        assert_eq!(value(&report, "join.errors.http_503"), Some(0.0));
        assert_eq!(value(&report, "video.loss_rate"), None);
        assert!(has(&report, "video.loss_rate") && !has(&report, "video.fps"));
    }
}
