//! How long the sequences are that models are taken through.

/// How many operations in a row, `full` in `cargo test`: fewer where each takes fifty times as long
/// (`STAMPEDE_SHALLOW`, which `sanitize` sets), and fewer still under Miri.
pub(crate) fn depth(full: u32) -> u32 {
    let shallow = std::env::var_os("STAMPEDE_SHALLOW").is_some();
    let less = if cfg!(miri) { 3 } else { u32::from(shallow) * 2 };
    full - less
}
