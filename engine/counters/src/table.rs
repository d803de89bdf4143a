//! The table of a struct of counters, and the one for people.

use std::fmt::Write as _;

use crate::{Better, Counter, Figure, Place, Scope, Value};

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
