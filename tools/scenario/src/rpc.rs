//! Calls between participants: who calls, how often, and with how much.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use stampede_core::data::{RpcCalls, RpcRole};
use stampede_impair::seeded;
use stampede_report::Failure;

use crate::RoomSpec;
use crate::rpc_draft::RpcDraft;

/// Calls that a caller makes in a second.
const RATE: f64 = 1.0;
/// Their payload.
const BYTES: usize = 256;
/// As LiveKit's SDKs have it (client-sdk-js src/room/rpc/client/RpcClientManager.ts).
const TIMEOUT: Duration = Duration::from_secs(15);
/// What is called and answered.
const METHOD: &str = "stampede.echo";

/// Calls that are made.
#[derive(Debug, Clone, PartialEq)]
pub struct RpcSpec {
    /// Who calls, per room: the first of those who join, publishers before participants before
    /// subscribers.
    pub callers: u32,
    /// Calls that one of them makes in a second.
    pub rate: f64,
    /// Bytes of a payload.
    pub bytes: usize,
    /// How long an answer may take.
    pub timeout: Duration,
    /// What is called, and answered by everybody.
    pub method: Arc<str>,
    /// Who is called, if not everybody of this run in turn.
    pub to: Option<Arc<str>>,
}

impl RpcSpec {
    /// Checks what was asked for; `None` where nobody calls.
    ///
    /// # Errors
    /// The first contradiction, exit code 104.
    pub(crate) fn new(draft: &RpcDraft) -> Result<Option<Self>, Failure> {
        let RpcDraft { callers, rate, bytes, timeout, method, to } = draft;
        let callers = callers.unwrap_or(0);
        if callers == 0 {
            let given = [
                (rate.is_some(), "--rpc-rate"),
                (bytes.is_some(), "--rpc-size"),
                (timeout.is_some(), "--rpc-timeout"),
                (method.is_some(), "--rpc-method"),
                (to.is_some(), "--rpc-to"),
            ];
            return match given.into_iter().find(|(given, _)| *given) {
                Some((_, flag)) => Err(Failure::config(format!(
                    "{flag} is given but nobody calls: add --rpc-callers 1"
                ))),
                None => Ok(None),
            };
        }
        Ok(Some(Self {
            callers,
            rate: rate.unwrap_or(RATE),
            bytes: bytes.unwrap_or(BYTES),
            timeout: timeout.unwrap_or(TIMEOUT),
            method: method.as_deref().unwrap_or(METHOD).into(),
            to: to.as_deref().map(Into::into),
        }))
    }

    /// Checks that every room has them, and somebody for them to call, of whom they are told.
    ///
    /// # Errors
    /// The first that has not, exit code 104.
    pub(crate) fn check(&self, rooms: &[RoomSpec], some_hide: bool) -> Result<(), Failure> {
        if some_hide && self.to.is_none() {
            return Err(Failure::config(
                "--rpc-callers: nobody is told of participants that are hidden (--hidden, or the \
                 grant hidden=true), so nobody calls them: add --rpc-to, or leave one of them out",
            ));
        }
        let least = rooms.iter().map(|room| room.publishers().saturating_add(room.receivers()));
        let least = least.min().unwrap_or(0);
        let (callers, others) = (self.callers, u32::from(self.to.is_none()));
        if least < callers.max(1 + others) {
            return Err(Failure::config(format!(
                "--rpc-callers {callers}: a room has but {least} participants, who are too few to \
                 call {}: add --subscribers or --participants",
                if others > 0 { "each other" } else { "so many times" }
            )));
        }
        Ok(())
    }

    /// The part of somebody: the `number`th of its room.
    pub(crate) fn role(&self, identity: &str, number: u32, run_id: &str, seed: u64) -> RpcRole {
        let mut tag = DefaultHasher::new();
        (run_id, identity).hash(&mut tag);
        let every = Duration::from_secs_f64(1.0 / self.rate);
        let phase = seeded(seed, &format!("rpc {identity}")).f64();
        let calls = (number < self.callers).then(|| RpcCalls {
            every,
            bytes: self.bytes,
            timeout: self.timeout,
            offset: every.mul_f64(phase),
        });
        RpcRole {
            tag: tag.finish(),
            method: Arc::clone(&self.method),
            callee: self.to.clone(),
            calls,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_is_nothing_without_who() {
        assert_eq!(RpcSpec::new(&RpcDraft::default()).unwrap(), None);
        let how = RpcDraft { rate: Some(5.0), ..RpcDraft::default() };
        let failure = RpcSpec::new(&how).unwrap_err().to_string();
        assert!(failure.contains("--rpc-rate") && failure.contains("--rpc-callers"));
        let all = RpcDraft { callers: Some(3), ..how };
        let spec = RpcSpec::new(&all).unwrap().unwrap();
        assert_eq!((spec.callers, spec.rate, &*spec.method), (3, 5.0, METHOD));
    }
}
