//! Which participants are of this run.

use std::collections::HashSet;

/// The identities of this run's participants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnIdentities {
    /// What those that the run has named begin with; empty if it has named none.
    prefix: String,
    /// Those that tokens of others have named.
    named: HashSet<String>,
}

impl OwnIdentities {
    /// Those that begin like this.
    pub fn prefixed(prefix: String) -> Self {
        Self { prefix, named: HashSet::new() }
    }

    /// These alone.
    pub fn named(named: HashSet<String>) -> Self {
        Self { prefix: String::new(), named }
    }

    /// True if this is one of them.
    pub fn has(&self, identity: &str) -> bool {
        (!self.prefix.is_empty() && identity.starts_with(&self.prefix))
            || self.named.contains(identity)
    }
}
