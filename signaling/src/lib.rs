//! LiveKit signalling: everything between the scenario and a LiveKit server that is not media.
//!
//! - [`session::Session`]: one participant's protocol as a pure state machine, no socket, no clock.
//! - [`Connection`]: a websocket that drives a session; thousands run on one tokio thread.
//! - [`RoomClient`]: create, list and delete rooms.
//! - [`ApiCredentials`], [`Token`]: join tokens. Secrets are never printed.
//!
//! SDP is text here and the engine is elsewhere; the glue for one participant looks like this:
//!
//! ```no_run
//! use std::time::Duration;
//! use stampede_signaling::session::{MediaCommand, MediaInput, SessionEvent};
//! use stampede_signaling::{ConnectError, ConnectOptions, Connection, Update};
//!
//! # fn engine(_: MediaCommand) {}
//! async fn participant(
//!     options: ConnectOptions,
//!     mut from_engine: tokio::sync::mpsc::Receiver<MediaInput>,
//!     mut stop: tokio::sync::watch::Receiver<bool>,
//! ) -> Result<(), ConnectError> {
//!     let mut connection = Connection::connect(options).await?; // ConnectError::kind()
//!     let _phases = connection.timings();
//!     loop {
//!         tokio::select! {
//!             // Cancel-safe; also sends what `media` queued.
//!             update = connection.next() => match update {
//!                 Some(Update::Media(command)) => engine(command),
//!                 Some(Update::Event(SessionEvent::Ended(why))) => println!("{}", why.kind()),
//!                 Some(Update::Event(_)) => {}
//!                 None => return Ok(()),
//!             },
//!             Some(input) = from_engine.recv() => connection.media(input),
//!             _ = stop.changed() => {
//!                 connection.leave(Duration::from_secs(1)).await;
//!             }
//!         }
//!     }
//! }
//! ```

#![forbid(unsafe_code)]

pub mod connection;
mod error_kind;
pub mod presence;
pub mod proxy;
pub mod rooms;
pub mod server_url;
pub mod session;
mod text;
pub mod token;
mod wire;

pub use connection::{ConnectError, ConnectOptions, ConnectStep, Connection, TlsSetup, Update};
pub use error_kind::{CloseCode, ErrorKind, Flooded};
pub use proxy::{Proxies, Proxy, ProxyError};
pub use rooms::RoomClient;
pub use server_url::{ServerUrl, UrlError};
pub use token::{
    ApiCredentials, Grant, GrantError, JoinGrant, PLAIN, Profile, TOKEN_TTL, Token, TokenError,
    TokenFacts,
};
