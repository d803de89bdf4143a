//! What the errors of joins mean to the verdict, whatever they are called.

/// What an error means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ErrorClass {
    /// It tells nothing of whose fault it is.
    #[default]
    Other,
    /// The server answered, and refused.
    Refused,
    /// The server ended a session that stood.
    EndedByServer,
    /// The server sent more than anybody can use.
    Flooded,
    /// The websocket is gone, by whatever side.
    SignallingLost,
    /// The server does not answer pings.
    Unanswered,
    /// The server says that it lost the media of a session that stood. It knows no more than that.
    MediaLost,
    /// The server's host answered that nobody listens at its port any more. Of a participant that had
    /// been connected, so the address is right; a proxy's word is not this.
    NobodyListens,
    /// A join hung at media, and it is known where; the server may have had no candidates.
    Hung {
        /// It is the server's.
        by_server: bool,
    },
    /// This machine has no ports, descriptors or memory left.
    NoResources,
    /// A part of this process did not keep up.
    Overloaded,
}

impl ErrorClass {
    /// True if a server answered and refused, ended or flooded.
    pub fn is_refusal(self) -> bool {
        matches!(
            self,
            Self::Refused | Self::EndedByServer | Self::Flooded | Self::Hung { by_server: true }
        )
    }

    /// True if it tells whose fault it is that somebody lost a connection.
    pub fn tells(self) -> bool {
        matches!(self, Self::EndedByServer | Self::Flooded | Self::NobodyListens)
    }

    /// True if this machine had too little of something.
    pub fn is_shortage(self) -> bool {
        matches!(self, Self::NoResources | Self::Overloaded)
    }
}

/// Errors of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ErrorFact {
    /// Its key in `join.errors`.
    pub kind: String,
    /// How many; 0 of what was only said.
    pub count: u64,
    /// What it means.
    pub class: ErrorClass,
    /// What was said of the first one.
    pub said: Option<String>,
}
