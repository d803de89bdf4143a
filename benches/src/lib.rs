//! Criterion benches stand in `benches/`, one file a question; tests of the whole workspace in
//! `tests/`.
#![forbid(unsafe_code)]
