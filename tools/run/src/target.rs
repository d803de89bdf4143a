//! To whom something can be done on purpose.

use std::rc::Rc;

use crate::participant::Orders;

/// Somebody to whom something can be done.
pub(crate) struct Target {
    /// The way to it.
    pub orders: Rc<Orders>,
    /// It receives.
    pub receives: bool,
    /// It publishes.
    pub publishes: bool,
    /// Its part of the subscribers.
    pub cohort: u16,
}
