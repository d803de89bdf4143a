//! The names of TURN servers that a participant waits for, while all else goes on.

use std::pin::Pin;

use stampede_engine::TurnServer;
use stampede_signaling::session::TurnServer as Named;

use crate::context::Context;

type Resolved = (Vec<TurnServer>, bool);

/// What is being looked up, if anything is.
#[derive(Default)]
pub(super) struct Resolving<'a>(Option<Pin<Box<dyn Future<Output = Resolved> + 'a>>>);

impl<'a> Resolving<'a> {
    /// Looks up the names of these, in the place of those before; those that may be tried, as far as
    /// they are known already.
    pub(super) fn begin(
        &mut self,
        context: &'a Context,
        named: Vec<Named>,
        only: bool,
    ) -> Vec<TurnServer> {
        let servers = &context.turn_servers;
        let known = servers.at_once(&named);
        let names = servers.is_to_resolve(&named).then_some(named);
        self.0 = names.map(|named| {
            Box::pin(async move { (servers.resolve(&named).await, only) }) as Pin<Box<_>>
        });
        known
    }

    /// They are all looked up; and whether relays alone are wanted. Cancel-safe.
    pub(super) async fn done(&mut self) -> Resolved {
        let Some(looked_up) = &mut self.0 else { return std::future::pending().await };
        let resolved = looked_up.as_mut().await;
        self.0 = None;
        resolved
    }
}
