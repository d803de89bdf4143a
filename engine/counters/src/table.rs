//! The rows of the table, and what each output takes from them.

use std::fmt::Write as _;

use crate::{Field, Figure, Place, Value};

/// Of what a counter is a count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Packets or datagrams.
    Packets,
    /// Frames.
    Frames,
    /// Streams (primary SSRCs).
    Streams,
    /// Tracks.
    Tracks,
    /// RTCP or signalling messages.
    Messages,
    /// Participants.
    Participants,
    /// Times that something happened.
    Times,
    /// Seconds.
    Seconds,
    /// Cakes of the example of [`counters!`](crate::counters).
    #[doc(hidden)]
    Cakes,
}

/// Which way a figure is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    /// Lower: loss, latency, errors, cost.
    Lower,
    /// Higher: what was received.
    Higher,
    /// Neither: a consequence of what was asked for.
    Neither,
}

/// Whose count it is. A stream's is a peer's and a worker's too, added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// A received stream's.
    Stream,
    /// A peer's.
    Peer,
    /// A media worker's.
    Worker,
    /// Of the whole run only.
    Run,
}

/// One counter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counter {
    /// Its key below that of its table.
    pub key: String,
    /// What it counts: whole sentences or the beginning of one, the first of them the shortest.
    pub help: &'static str,
    /// Of what it is a count.
    pub unit: Unit,
    /// Which way it is better.
    pub better: Better,
    /// Whose it is.
    pub scope: Scope,
    /// Its column in the CSV of streams.
    pub column: String,
    /// What Prometheus calls it, without `stampede_`.
    pub metric: String,
    /// A sum, not a maximum.
    pub sum: bool,
}

impl Counter {
    /// The row of a field.
    pub(crate) fn of(field: &Field, at: &Place, sum: bool) -> Self {
        let name = |prefix: &str, own: Option<&str>| {
            own.map_or_else(|| format!("{prefix}{}", field.name), str::to_owned)
        };
        let metric = name(&at.metric, field.metric);
        Self {
            key: format!("{}{}", at.key, field.name),
            help: field.help,
            unit: field.unit.unwrap_or(Unit::Times),
            better: field.better.unwrap_or(Better::Neither),
            scope: field.scope,
            column: name(&at.column, field.column),
            metric: match metric.strip_suffix("_s") {
                Some(base) => format!("{base}_seconds"),
                None => metric,
            },
            sum,
        }
    }

    /// The first sentence of `help`, without its dot.
    pub fn short_help(&self) -> &'static str {
        let end = self.help.find(['.', ';', ':']).unwrap_or(self.help.len());
        &self.help[..end]
    }
}

/// A struct of counters, made by [`counters!`](crate::counters).
pub trait Counters: Figure {
    /// Adds the rows of its fields to a table.
    fn describe_fields(at: &Place, table: &mut Vec<Counter>);

    /// All its counters.
    fn table() -> &'static [Counter];

    /// The values, in the order of the table.
    fn list(&self) -> Vec<Value> {
        let mut values = Vec::new();
        self.values(&mut |value| values.push(value));
        values
    }

    /// The sum of all; what one of them does not know is unknown. `None` if there are none.
    fn sum_of(all: impl IntoIterator<Item = Self>) -> Option<Self> {
        all.into_iter().reduce(|mut sum, one| {
            sum.merge_known(&one);
            sum
        })
    }
}

impl Unit {
    fn word(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Packets => "packets",
            Self::Frames => "frames",
            Self::Streams => "streams",
            Self::Tracks => "tracks",
            Self::Messages => "messages",
            Self::Participants => "participants",
            Self::Times => "times",
            Self::Seconds => "s",
            Self::Cakes => "cakes",
        }
    }
}

/// The table of all counters as Markdown. `columns` says which are in the CSV of streams, and
/// `metrics` which are told to Prometheus.
pub fn markdown(
    table: &[Counter],
    columns: impl Fn(&Counter) -> Option<String>,
    metrics: impl Fn(&Counter) -> Option<String>,
) -> String {
    let mut text = "| Key | Unit | Better | Of each | CSV | Prometheus | Meaning |\n\
                    |---|---|---|---|---|---|---|\n"
        .to_owned();
    let code = |name: Option<String>| name.map_or(String::new(), |name| format!("`{name}`"));
    for counter in table {
        let better = match counter.better {
            Better::Lower => "lower",
            Better::Higher => "higher",
            Better::Neither => "",
        };
        let scope = match counter.scope {
            Scope::Stream => "stream",
            Scope::Peer => "peer",
            Scope::Worker => "worker",
            Scope::Run => "run",
        };
        let _ = writeln!(
            text,
            "| `{}` | {} | {better} | {scope} | {} | {} | {} |",
            counter.key,
            counter.unit.word(),
            code(columns(counter)),
            code(metrics(counter)),
            counter.help.replace('|', "\\|").replace("[`", "`").replace("`]", "`"),
        );
    }
    text
}
