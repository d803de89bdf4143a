//! The disk thread.
