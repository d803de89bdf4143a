//! LiveKit signalling: everything between the scenario and a LiveKit server that is not media.
//!
//! - [`Session`](session::Session): one participant's protocol as a pure state machine: no socket, no clock.
//! - [`Connection`](connection::Connection): a websocket that drives a session; thousands run on one tokio thread.
//! - [`RoomClient`](rooms::RoomClient): create, list and delete rooms.
//! - [`ApiCredentials`], [`Token`]: join tokens; secrets are never printed.
//!
//! The glue for one participant (SDP is text, the engine is elsewhere):
//!
//! ```ignore
//! let token = credentials.join_token(&JoinGrant { room, identity, can_publish: false, can_subscribe: true, hidden: false, ttl: TOKEN_TTL })?;
//! let mut connection = Connection::connect(ConnectOptions::new(url, token, Role::Subscriber { .. }, tls)).await?;   // ConnectError::kind()
//! let opened = connection.timings();            // Instants: started, tcp, tls, websocket
//! loop {
//!     tokio::select! {
//!         update = connection.next() => match update {          // cancel-safe
//!             Some(Update::Media(MediaCommand::RemoteOffer { id, sdp, mid_to_track_id })) => engine.command(..),
//!             Some(Update::Media(..)) => ..,
//!             Some(Update::Event(SessionEvent::Ended(reason))) => ..,   // reason.kind(); next() then gives None
//!             Some(Update::Event(event)) => ..,
//!             None => break,
//!         },
//!         notice = notices.recv() => connection.media(MediaInput::LocalAnswer { offer_id, sdp }),  // sync; sent by next()
//!         () = stop.notified() => { connection.leave(Duration::from_secs(1)).await; break }
//!     }
//! }
//! ```

#![forbid(unsafe_code)]

pub mod connection;
pub mod rooms;
pub mod server_url;
pub mod session;
mod text;
pub mod token;
mod wire;

pub use connection::{ConnectError, ConnectOptions, Connection, TlsSetup, Update};
pub use rooms::RoomClient;
pub use server_url::{ServerUrl, UrlError};
pub use token::{ApiCredentials, JoinGrant, TOKEN_TTL, Token, TokenError};
