//! Log lines: to stderr, or into a bounded ring while they are held back because a full-screen view
//! has the terminal.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::{console, one_line};

/// Most lines kept while the view is up; the oldest are dropped, and how many is said at its end.
pub const LOG_LINES_MAX: usize = 500;
/// Longest line kept, in characters; the rest is cut off.
const LOG_LINE_CHARS_MAX: usize = 500;

/// Latest lines, oldest first.
#[derive(Debug, Default)]
struct Ring {
    lines: VecDeque<String>,
    dropped: u64,
}

impl Ring {
    fn push(&mut self, line: &str) {
        if self.lines.len() == LOG_LINES_MAX {
            self.lines.pop_front();
            self.dropped += 1;
        }
        // A log line quotes what servers say: no control character of theirs reaches the screen.
        self.lines.push_back(one_line(line).chars().take(LOG_LINE_CHARS_MAX).collect());
    }

    fn push_all(&mut self, bytes: &[u8]) {
        for line in String::from_utf8_lossy(bytes).lines().filter(|line| !line.trim().is_empty()) {
            self.push(line);
        }
    }

    fn last(&self, count: usize) -> Vec<String> {
        self.lines.iter().skip(self.lines.len().saturating_sub(count)).cloned().collect()
    }
}

static RING: Mutex<Ring> = Mutex::new(Ring { lines: VecDeque::new(), dropped: 0 });

fn with_ring<T>(work: impl FnOnce(&mut Ring) -> T) -> T {
    work(&mut RING.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Lines are held back.
static HELD: AtomicBool = AtomicBool::new(false);

/// Holds lines back from now on: a view has the terminal.
pub fn hold() {
    HELD.store(true, Ordering::Release);
}

/// True while lines are held back, and so the terminal is a view's.
pub fn is_held() -> bool {
    HELD.load(Ordering::Acquire)
}

/// Lines go to stderr again, once the view is gone; true if they were held back. Those that were
/// wait for [`release`].
pub fn let_go() -> bool {
    HELD.swap(false, Ordering::AcqRel)
}

/// The latest lines that are held back, oldest first.
pub fn last(count: usize) -> Vec<String> {
    with_ring(|ring| ring.last(count))
}

/// Writes to stderr what the view held back, once it is gone.
pub fn release() {
    let ring = with_ring(std::mem::take);
    if ring.dropped > 0 {
        console::err(&format!("({} older log lines were not kept)\n", ring.dropped));
    }
    for line in ring.lines {
        console::err(&(line + "\n"));
    }
}

/// Where log lines go. One `write` is one whole line or more. It never fails: tracing would say so
/// with `eprintln!`, which panics where stderr is gone.
#[derive(Debug, Clone, Copy)]
pub struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match is_held() {
            true => with_ring(|ring| ring.push_all(bytes)),
            false => {
                let _ = console::write_all(rustix::stdio::stderr(), bytes);
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Says one thing to the user.
pub fn say(text: &str) {
    let _ = LogWriter.write_all(format!("{text}\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_is_bounded_and_counts_what_it_drops() {
        let mut ring = Ring::default();
        for number in 0..LOG_LINES_MAX + 7 {
            ring.push_all(format!("line {number}\n").as_bytes());
        }
        assert_eq!((ring.lines.len(), ring.dropped), (LOG_LINES_MAX, 7));
        assert_eq!(ring.last(1), [format!("line {}", LOG_LINES_MAX + 6)]);
        assert_eq!(ring.last(usize::MAX)[0], "line 7");
    }

    #[test]
    fn nothing_in_a_line_can_move_the_cursor() {
        let mut ring = Ring::default();
        ring.push_all(b"a\x1b[2Jb\rc\n\n\td\xff\n");
        assert_eq!(ring.last(9), ["a [2Jb c", "d\u{fffd}"]);
        ring.push(&"x".repeat(LOG_LINE_CHARS_MAX + 1));
        assert_eq!(ring.last(1)[0].len(), LOG_LINE_CHARS_MAX);
    }
}
