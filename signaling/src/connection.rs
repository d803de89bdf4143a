//! A websocket to a LiveKit server, driving one [`Session`](crate::session::Session).

mod error;

use std::time::Instant;

pub use error::{ConnectError, ERROR_BODY_CHARS_MAX};

use crate::session::{MediaCommand, SessionEvent};

/// What [`Connection::next`] gives out.
#[derive(Debug, Clone, PartialEq)]
pub enum Update {
    /// Do this with the media plane.
    Media(MediaCommand),
    /// This happened.
    Event(SessionEvent),
}

/// When each step of opening the websocket was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectTimings {
    /// `connect` was called.
    pub started: Instant,
    /// The TCP connection stood.
    pub tcp: Instant,
    /// TLS stood; `None` for `ws://`.
    pub tls: Option<Instant>,
    /// The server answered 101.
    pub websocket: Instant,
}
