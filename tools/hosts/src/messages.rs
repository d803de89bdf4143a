//! What coordinator and workers say: one JSON text a message, over one websocket a worker.
//!
//! The order is: `hello`, `challenge`, `proof`, `admitted` ([`crate::proof`]); then `clock`
//! questions at any time; `share`, `ready`, `go` and `arrived` for each [`Point`], `snapshot` once
//! a second, and at the end `report`, its parts as binary messages, `taken`. Of a search each step is
//! a connection of its own, and in the last one `done` follows `admitted`. Whatever comes is bounded
//! before it is decoded.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::clock::Estimate;
use crate::proof::{Nonce, Proof};

/// Version of this protocol. Both sides must have the same one, and be of the same version of
/// stampede: a share is read by the same parser that read the coordinator's own words.
pub const PROTOCOL: u32 = 2;
/// Longest message in bytes, before and after the proof; a longer one ends the connection.
pub const MESSAGE_BYTES_MAX: usize = 2 << 20;
/// Longest report in bytes, over all its parts; a longer one loses the host.
pub const REPORT_BYTES_MAX: usize = 256 << 20;
/// Bytes of a part of a report, but for its last one.
pub const REPORT_PART_BYTES: usize = 64 << 10;
/// Most hosts of one run.
pub const HOSTS_MAX: usize = 1_000;
/// Most characters of a name or reason that is shown to people; what is longer is cut.
pub const TEXT_CHARS_MAX: usize = 300;

/// Where the hosts of a run wait for each other, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Point {
    /// Workers and rooms are there, nobody has joined.
    Start,
    /// Publishers have joined, or had the time for it.
    Published,
    /// Participants that do both have been started: the subscribers' ramp, or stages, come next.
    Ramp,
    /// Everybody was started: the measured window begins.
    Measure,
    /// Subscribers have left.
    SubscribersLeft,
}

/// A host's part of a run: the coordinator's own words, and which part of what they ask for is
/// meant.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Words of `stampede run`, with URL, key, secret and seed in force; the last of two counts.
    pub words: Vec<String>,
    /// Text of the scenario file, if there is one.
    pub scenario: Option<String>,
    /// Name of the run, a part of every identity.
    pub run_id: String,
    /// Which host of those of `weights` this is, from 0.
    pub number: u32,
    /// How much each host takes, one for each.
    pub weights: Vec<u64>,
}

/// Without the words: the API secret is one of them.
impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Share")
            .field("words", &self.words.len())
            .field("scenario", &self.scenario.as_ref().map(String::len))
            .field("run_id", &self.run_id)
            .field("number", &self.number)
            .field("weights", &self.weights)
            .finish()
    }
}

/// What a distribution has grown by since it was told last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Growth {
    /// Nothing of what was told before counts any more.
    pub anew: bool,
    /// As `hdr` of a distribution in a report; empty if there is nothing in it.
    pub hdr: String,
}

/// What a worker says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum FromWorker {
    /// The first message.
    Hello {
        /// [`PROTOCOL`].
        protocol: u32,
        /// Version of stampede.
        version: String,
        /// Name of the host.
        name: String,
        /// Never used twice.
        nonce: Nonce,
        /// Packets a second that it carries, where it was calibrated.
        capacity: Option<u64>,
    },
    /// It knows the token.
    Proof {
        /// See [`crate::proof::prove`].
        proof: Proof,
    },
    /// What is the time? Also the sign that it lives.
    Clock {
        /// By its own clock, nanoseconds since the Unix epoch.
        sent_ns: u64,
    },
    /// Its share can start.
    Ready {
        /// The coordinator's clock against its own.
        clock: Estimate,
    },
    /// Its share can't start here.
    Refused {
        /// For people.
        why: String,
    },
    /// It waits for the others here.
    Arrived {
        /// Where.
        point: Point,
    },
    /// The state of its part, once a second.
    Snapshot {
        /// `Progress` of `tools/run`, as JSON.
        progress: String,
        /// What its distributions have grown by since the snapshot before, by their names.
        grown: BTreeMap<String, Growth>,
    },
    /// Its report follows, in binary messages of [`REPORT_PART_BYTES`].
    Report {
        /// Of the whole report.
        bytes: u64,
        /// The coordinator's clock against its own, at the end.
        clock: Estimate,
    },
}

/// What the coordinator says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum ToWorker {
    /// It knows the token, and asks whether the worker does.
    Challenge {
        /// Version of stampede.
        version: String,
        /// Never used twice.
        nonce: Nonce,
        /// See [`crate::proof::prove`].
        proof: Proof,
    },
    /// The worker is one of the run's.
    Admitted,
    /// The worker is not wanted.
    Refused {
        /// For people.
        why: String,
    },
    /// Answers [`FromWorker::Clock`].
    Clock {
        /// As the worker said.
        sent_ns: u64,
        /// When the question came, by the coordinator's clock.
        received_ns: u64,
        /// When this left, by the same.
        answered_ns: u64,
    },
    /// The worker's part.
    Share(Share),
    /// Everybody is at this point: go on.
    Go {
        /// Where they are.
        point: Point,
        /// When to go on, by the coordinator's clock, nanoseconds since the Unix epoch.
        at_ns: u64,
    },
    /// Start nobody until told otherwise, as the user has asked, or go on with it.
    Pause {
        /// True to stop.
        paused: bool,
    },
    /// End the run in order.
    Stop {
        /// For people.
        why: String,
        /// The expression and value of the threshold that ends it; without one it is interrupted.
        crossed: Option<(String, f64)>,
    },
    /// The report is there: the worker may go.
    Taken {
        /// Another run may follow: it is to come back for it.
        again: bool,
    },
    /// No other run follows.
    Done,
}

/// A message that can't be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MessageError {
    /// Longer than [`MESSAGE_BYTES_MAX`].
    #[error("a message of {0} bytes, and {MESSAGE_BYTES_MAX} is the most")]
    TooLong(usize),
    /// Not one of ours.
    #[error("a message that can't be read: {0}")]
    Unreadable(String),
}

/// Reads a message.
///
/// # Errors
/// It is too long, or none of this protocol's.
pub fn decode<T: DeserializeOwned>(text: &str) -> Result<T, MessageError> {
    if text.len() > MESSAGE_BYTES_MAX {
        return Err(MessageError::TooLong(text.len()));
    }
    // What serde says may quote what came; the place alone is as good.
    serde_json::from_str(text).map_err(|error| {
        MessageError::Unreadable(format!("at line {}, column {}", error.line(), error.column()))
    })
}

/// Writes a message.
///
/// # Errors
/// It would be longer than what the other side takes.
pub fn encode(message: &impl Serialize) -> Result<String, MessageError> {
    let text = serde_json::to_string(message)
        .map_err(|error| MessageError::Unreadable(error.to_string()))?;
    if text.len() > MESSAGE_BYTES_MAX { Err(MessageError::TooLong(text.len())) } else { Ok(text) }
}

/// What another side said, as one line of at most [`TEXT_CHARS_MAX`] printable characters.
pub fn shown(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(TEXT_CHARS_MAX).collect::<String>().trim().to_owned()
}

/// A report that comes in parts.
#[derive(Debug, Default)]
pub struct Parts {
    bytes: Vec<u8>,
    due: usize,
}

impl Parts {
    /// One of so many bytes.
    ///
    /// # Errors
    /// More than [`REPORT_BYTES_MAX`].
    pub fn announced(bytes: u64) -> Result<Self, MessageError> {
        match usize::try_from(bytes) {
            Ok(due) if due <= REPORT_BYTES_MAX => Ok(Self { bytes: Vec::new(), due }),
            _ => Err(MessageError::Unreadable(format!(
                "a report of {bytes} bytes, and {REPORT_BYTES_MAX} is the most"
            ))),
        }
    }

    /// Takes a part; the whole once it is there.
    ///
    /// # Errors
    /// More came than was announced.
    pub fn take(&mut self, part: &[u8]) -> Result<Option<Vec<u8>>, MessageError> {
        if self.bytes.len() + part.len() > self.due {
            return Err(MessageError::Unreadable("more of a report than was announced".to_owned()));
        }
        self.bytes.extend_from_slice(part);
        Ok((self.bytes.len() == self.due).then(|| std::mem::take(&mut self.bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_way() {
        let share = Share {
            words: vec!["--url=ws://h".to_owned(), "--api-secret=hunter2".to_owned()],
            scenario: Some("rooms = 2\n".to_owned()),
            run_id: "0123abcd".to_owned(),
            number: 1,
            weights: vec![1, 1],
        };
        assert!(!format!("{share:?}").contains("hunter2"));
        for message in [
            ToWorker::Share(share),
            ToWorker::Go { point: Point::Measure, at_ns: u64::MAX },
            ToWorker::Stop { why: "w".to_owned(), crossed: Some(("x<1".to_owned(), 2.5)) },
            ToWorker::Taken { again: true },
            ToWorker::Done,
        ] {
            let text = encode(&message).unwrap();
            assert_eq!(decode::<ToWorker>(&text), Ok(message));
        }
    }

    #[test]
    fn what_is_too_long_or_of_another_kind_is_refused() {
        let long = format!("\"{}\"", "x".repeat(MESSAGE_BYTES_MAX));
        assert_eq!(decode::<ToWorker>(&long), Err(MessageError::TooLong(long.len())));
        let error = decode::<FromWorker>("{\"is\":\"admitted\",\"hunter2\":1}").unwrap_err();
        assert!(error.to_string().contains("line 1") && !error.to_string().contains("hunter2"));
        assert_eq!(shown("a\u{1b}[2J\nb"), "a [2J b");
        assert_eq!(shown(&"x".repeat(1_000)).len(), TEXT_CHARS_MAX);
    }

    #[test]
    fn a_report_comes_in_parts_and_never_as_more_than_announced() {
        let mut parts = Parts::announced(5).unwrap();
        assert_eq!(parts.take(b"abc"), Ok(None));
        assert_eq!(parts.take(b"de"), Ok(Some(b"abcde".to_vec())));
        assert!(Parts::announced(4).unwrap().take(b"abcde").is_err());
        assert!(Parts::announced(REPORT_BYTES_MAX as u64 + 1).is_err());
    }

    #[test]
    fn points_come_in_their_order() {
        use Point::*;
        assert!([Start, Published, Ramp, Measure, SubscribersLeft].is_sorted());
    }
}
