//! What leaves the process: files that are written whole or not at all, text for people on stdout
//! and stderr, and log lines that wait while a full-screen view has the terminal.
//!
//! Nothing here panics when a reader has gone away, and nothing that blocks can hold a signal up.
//!
//! ```
//! let dir = std::env::temp_dir().join(format!("stampede-output-{}", std::process::id()));
//! std::fs::create_dir_all(&dir)?;
//! let path = dir.join("report.json");
//! stampede_output::files::write(&path, b"{}".to_vec()).map_err(std::io::Error::other)?;
//! assert_eq!(std::fs::read_to_string(&path)?, "{}");
//! std::fs::remove_dir_all(&dir)?;
//! # Ok::<(), std::io::Error>(())
//! ```

#![forbid(unsafe_code)]

pub mod console;
pub mod files;
pub mod log;
mod text;

pub use log::say;
pub use text::{no_color, one_line, with_causes};
