//! Gives the terminal back that the full-screen view has taken.

use std::io;

use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{LeaveAlternateScreen, disable_raw_mode};
use stampede_output::log;

/// Gives the terminal back, if it was taken. Safe to call from anywhere, any number of times.
pub(crate) fn restore() {
    if log::let_go() {
        // Nothing can be done about a terminal that is gone.
        let _ = execute!(io::stderr(), LeaveAlternateScreen, Show);
        let _ = disable_raw_mode();
    }
}
