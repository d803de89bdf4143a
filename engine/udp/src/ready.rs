//! Which sockets are to be read next.

use std::collections::VecDeque;

/// Ids of sockets, the longest waiting first, each at most once, whoever has it by now. So there
/// are never more than there are ids.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    queue: VecDeque<u32>,
    /// Index: socket.
    queued: Vec<bool>,
}

impl Ready {
    /// Puts a socket at the end, unless it waits already.
    pub(crate) fn push(&mut self, index: u32) {
        let at = index as usize;
        if self.queued.len() <= at {
            self.queued.resize(at + 1, false);
        }
        if !std::mem::replace(&mut self.queued[at], true) {
            self.queue.push_back(index);
        }
    }

    /// The longest waiting one.
    pub(crate) fn pop(&mut self) -> Option<u32> {
        let index = self.queue.pop_front()?;
        self.queued[index as usize] = false;
        Some(index)
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether none does.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests;
