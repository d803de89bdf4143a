//! What all handlers of the HTTP side share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::auth::Auth;
use crate::faults::Stalls;
use crate::hub::Hub;
use crate::report::Reporter;

/// What all handlers share.
#[derive(Clone)]
pub(crate) struct ServerState {
    hub: Arc<Mutex<Hub>>,
    auth: Auth,
    reporter: Reporter,
    stalls: Arc<Stalls>,
}

impl ServerState {
    pub(crate) fn new(
        hub: Arc<Mutex<Hub>>,
        auth: Auth,
        reporter: Reporter,
        stalls: Stalls,
    ) -> Self {
        Self { hub, auth, reporter, stalls: Arc::new(stalls) }
    }

    /// The rooms, told what time it is. A panic elsewhere while it was locked does not make them
    /// unusable.
    pub(crate) fn hub(&self) -> MutexGuard<'_, Hub> {
        let mut hub = self.hub.lock().unwrap_or_else(PoisonError::into_inner);
        hub.begin_turn(Instant::now());
        hub
    }

    /// Who checks tokens.
    pub(crate) fn auth(&self) -> &Auth {
        &self.auth
    }

    /// Who puts the ledger together.
    pub(crate) fn reporter(&self) -> &Reporter {
        &self.reporter
    }

    /// Waits for the end of a stall of signalling, if there is one.
    pub(crate) async fn stalled(&self) {
        self.stalls.wait().await;
    }
}
