//! Kinds of errors of joins, as `join.errors` names them.

/// What the kinds begin with that a server answers a participant with.
const REFUSALS: [&str; 4] = ["http_", "server_", "publish_refused", "signal_closed_"];
/// No close frame came: the server, or anything on the way, is gone.
pub const CLOSED_BY_NOBODY: &str = "signal_closed_1006";
/// What the kinds begin with that tell of a server that sent more than anybody can use.
const FLOODS: &str = "server_flooded";
/// The kind of a machine that has no ports, descriptors or memory left.
pub const NO_RESOURCES: &str = "local_resources";
/// Kinds that this machine is to blame for.
const SHORTAGES: [&str; 3] = [NO_RESOURCES, "worker_overloaded", "signalling_overloaded"];

/// True if a server answered and refused.
pub fn is_refusal(kind: &str) -> bool {
    kind != CLOSED_BY_NOBODY && REFUSALS.iter().any(|refusal| kind.starts_with(refusal))
}

/// True if this machine had too little of something.
pub fn is_shortage(kind: &str) -> bool {
    SHORTAGES.contains(&kind)
}

/// True if the server sent more than anybody can use.
pub fn is_flood(kind: &str) -> bool {
    kind.starts_with(FLOODS)
}
