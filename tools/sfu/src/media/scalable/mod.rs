//! Several layers in one stream (SVC), by the dependency descriptor that VP9 and AV1 bring along: of
//! each packet is read once what layer frame it belongs to ([`frame`]), and every subscriber gets those
//! of one decode target ([`selector`]), numbered without gaps ([`thin`]). As LiveKit does it
//! (`pkg/sfu/videolayerselector/dependencydescriptor.go`). Pure.

pub(crate) mod frame;
pub(crate) mod selector;
mod thin;
