//! The rows of the table: what is declared of a counter, and where it stands.

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
    /// It may fall while a run goes on: a gauge for Prometheus.
    pub falls: bool,
    /// The struct that it is declared in.
    pub group: &'static str,
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
            falls: field.falls || !sum,
            group: field.group,
        }
    }

    /// The first sentence of `help`, without its dot.
    pub fn short_help(&self) -> &'static str {
        let end = self.help.find(['.', ';', ':']).unwrap_or(self.help.len());
        &self.help[..end]
    }
}

impl Unit {
    /// As people read it.
    pub(crate) fn word(self) -> &'static str {
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
        }
    }
}

/// A field as it was declared.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Its key in the JSON.
    pub name: &'static str,
    /// What it counts, from its documentation.
    pub help: &'static str,
    /// Of what it is a count; `None` of a group.
    pub unit: Option<Unit>,
    /// Which way it is better; `None` of a group.
    pub better: Option<Better>,
    /// Whose count it is.
    pub scope: Scope,
    /// `flatten`: a group whose counters stand among those of the struct around it. `skip`: a group
    /// that its section has elsewhere.
    pub serde: Option<&'static str>,
    /// Of a counter its column in the CSV, of a group what those of its columns begin with; derived
    /// from the name if `None`.
    pub column: Option<&'static str>,
    /// The same for Prometheus.
    pub metric: Option<&'static str>,
    /// It may fall while a run goes on.
    pub falls: bool,
    /// The struct that it is declared in.
    pub group: &'static str,
}

/// Where in a table a group stands: what the names of its counters begin with.
#[derive(Debug, Clone, Default)]
pub struct Place {
    /// Of keys.
    pub key: String,
    /// Of columns.
    pub column: String,
    /// Of metrics.
    pub metric: String,
}

impl Place {
    /// That of a group in this one.
    #[must_use]
    pub fn within(&self, group: &Field) -> Self {
        let of = |prefix: &str, own: Option<&str>| match (own, group.serde) {
            (Some(own), _) => own.to_owned(),
            (None, Some("flatten")) => prefix.to_owned(),
            (None, _) => format!("{prefix}{}_", group.name),
        };
        Self {
            key: match group.serde {
                Some("flatten") => self.key.clone(),
                _ => format!("{}{}.", self.key, group.name),
            },
            column: of(&self.column, group.column),
            metric: of(&self.metric, group.metric),
        }
    }
}
