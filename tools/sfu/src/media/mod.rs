//! The media plane: pinned worker threads, each with one UDP socket and the peer connections
//! sharded to it.
//!
//! A worker's turn goes downwards through the files here, none of which uses one above it:
//! [`worker`] carries out commands and hands datagrams to peers; [`forward`] and [`ingest`] move
//! packets between [`tracks`] and [`peers`]; a [`peer`] has [`subscriptions`], whose packets leave
//! through an [`egress`] on the worker's [`socket`]. [`message`] and [`handle`] are what the
//! signalling thread sees.

pub(crate) mod addresses;
pub(crate) mod answers;
pub(crate) mod challenge;
pub(crate) mod codec;
pub(crate) mod congestion;
pub(crate) mod connection;
pub(crate) mod egress;
pub(crate) mod ended;
pub(crate) mod endpoint;
pub(crate) mod events;
pub(crate) mod factory;
pub(crate) mod failure;
pub(crate) mod forward;
pub(crate) mod handle;
pub(crate) mod ice;
pub(crate) mod incoming;
pub(crate) mod ingest;
pub(crate) mod joins;
pub(crate) mod layers;
pub(crate) mod message;
pub(crate) mod offers;
pub(crate) mod packet;
pub(crate) mod peer;
pub(crate) mod peers;
pub(crate) mod rates;
pub(crate) mod resend;
pub(crate) mod resent;
pub(crate) mod rewrite;
pub(crate) mod scalable;
pub(crate) mod siblings;
pub(crate) mod socket;
pub(crate) mod source;
mod speech;
pub(crate) mod stun;
pub(crate) mod subscription;
pub(crate) mod subscriptions;
pub(crate) mod tcp;
pub(crate) mod timers;
pub(crate) mod told;
pub(crate) mod track;
pub(crate) mod tracks;
pub(crate) mod worker;
