//! Calls from participant to participant (LiveKit's RPC).

use std::sync::Arc;
use std::time::Duration;

use stampede_counters::RpcErrorCounters;

/// Most bytes of a payload, ours or anybody's: what LiveKit's SDKs send in one data message, and
/// more than any RPC of theirs needs.
pub const RPC_BYTES_MAX: usize = 60_000;
/// Most bytes of a payload between clients of which one speaks protocol 0 (client-sdk-js
/// src/room/rpc/utils.ts, `MAX_V1_PAYLOAD_BYTES`).
pub(crate) const RPC_V1_BYTES_MAX: usize = 15_360;
/// Most calls that a peer makes in a second.
pub const RPC_CALLS_PER_S_MAX: f64 = 1_000.0;
/// Most participants that a peer calls in turn; further ones are not called.
pub const RPC_CALLEES_MAX: usize = 1_000;
/// A call that is not acknowledged within this has failed (client-sdk-js
/// src/room/rpc/client/RpcClientManager.ts).
pub const RPC_ACK_WITHIN: Duration = Duration::from_secs(7);
/// Least timeout that who is called is told (the same).
pub(crate) const REQUEST_TIMEOUT_MIN: Duration = Duration::from_secs(8);

/// What a peer has to do with calls: it answers, and may call.
#[derive(Debug, Clone)]
pub struct RpcRole {
    /// Tells its calls from those of all others.
    pub tag: u64,
    /// The method that is called and answered, with what it was called with.
    pub method: Arc<str>,
    /// Who alone is called; `None` is everybody of the same run, in turn.
    pub callee: Option<Arc<str>>,
    /// What it calls.
    pub calls: Option<RpcCalls>,
}

/// Calls that a peer makes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RpcCalls {
    /// From one call to the next; at least that of [`RPC_CALLS_PER_S_MAX`].
    pub every: Duration,
    /// Of the payload, up to [`RPC_BYTES_MAX`].
    pub bytes: usize,
    /// An answer that takes longer has not come.
    pub timeout: Duration,
    /// How long after its channel is open the first one is due; at most `every`. If it opens late, or
    /// never, they are due two seconds after the connection is up.
    pub offset: Duration,
}

/// Why a call failed (client-sdk-js src/room/rpc/utils.ts, `RpcError.ErrorCode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RpcErrorCode {
    UnsupportedMethod = 1400,
    RequestPayloadTooLarge = 1402,
    UnsupportedVersion = 1404,
    ApplicationError = 1500,
    ResponsePayloadTooLarge = 1504,
}

impl RpcErrorCode {
    /// What goes along with it.
    pub(crate) fn message(self) -> &'static str {
        match self {
            Self::UnsupportedMethod => "Method not supported at destination",
            Self::RequestPayloadTooLarge => "Request payload too large",
            Self::UnsupportedVersion => "Unsupported RPC version",
            Self::ApplicationError => "Application error in method handler",
            Self::ResponsePayloadTooLarge => "Response payload too large",
        }
    }

    /// Counts what an answer says.
    pub(crate) fn count(code: u64, errors: &mut RpcErrorCounters) {
        let of = |own: Self| code == own as u64;
        let counter = match code {
            _ if of(Self::UnsupportedMethod) => &mut errors.unsupported_method,
            _ if of(Self::RequestPayloadTooLarge) => &mut errors.request_too_large,
            _ if of(Self::UnsupportedVersion) => &mut errors.unsupported_version,
            _ if of(Self::ApplicationError) => &mut errors.application_error,
            _ if of(Self::ResponsePayloadTooLarge) => &mut errors.response_too_large,
            _ => &mut errors.other_error,
        };
        *counter += 1;
    }
}
