//! The terminal while the full-screen view has it: alternate screen, raw mode, keys.
//!
//! Whatever ends the view (its end, a panic of any thread, a signal, an exit at once) gives the
//! terminal back through [`restore`].

use std::io::{self, BufWriter, Stderr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once};
use std::thread;
use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Hide;
use ratatui::crossterm::event;
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, enable_raw_mode};

use super::controls::{Effect, Keys};
use super::draw::{self, Page};
use crate::signals;
use crate::terminal::restore;
use stampede_output::{console, log};

/// Pause between two looks of the key thread at whether the view is still there.
const KEY_WAIT: Duration = Duration::from_millis(200);
/// A frame goes out in one write where it fits.
const FRAME_BYTES: usize = 64 << 10;

/// A taken terminal.
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<BufWriter<Stderr>>>,
    keys: Keys,
    /// Cleared when this screen ends, for its key thread.
    alive: Arc<AtomicBool>,
}

impl Screen {
    /// Takes the terminal and starts to read keys.
    ///
    /// # Errors
    /// What the terminal refused; it is then as before.
    pub(super) fn enter(keys: Keys) -> io::Result<Self> {
        restore_on_panic();
        enable_raw_mode()?;
        log::hold();
        let entered = execute!(io::stderr(), EnterAlternateScreen, Hide).and_then(|()| {
            let writer = BufWriter::with_capacity(FRAME_BYTES, io::stderr());
            Terminal::new(CrosstermBackend::new(writer))
        });
        let terminal = entered.inspect_err(|_| restore())?;
        let (for_thread, alive) = (keys.clone(), Arc::new(AtomicBool::new(true)));
        let read_on = Arc::clone(&alive);
        thread::Builder::new()
            .name("keys".to_owned())
            .spawn(move || read_keys(&for_thread, &read_on))
            .inspect_err(|_| restore())?;
        Ok(Self { terminal, keys, alive })
    }

    /// Draws; false if the terminal is not ours any more.
    pub(super) fn draw(&mut self, page: &mut Page<'_>) -> bool {
        page.sort = self.keys.sort();
        page.help = self.keys.help();
        let drawn = log::is_held() && self.terminal.draw(|frame| draw::draw(frame, page)).is_ok();
        if !drawn {
            restore();
        }
        drawn
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.alive.store(false, Ordering::Release);
        restore();
    }
}

/// A panic message must be readable, and the shell usable, whichever thread panicked.
fn restore_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            restore();
            before(info);
        }));
    });
}

/// In raw mode Ctrl-C is a key like any other, so keys are read on a thread of their own: a busy
/// run still hears it.
///
/// `alive` is of one screen: the next one, of a search's next step, has its own thread and controls.
fn read_keys(keys: &Keys, alive: &AtomicBool) {
    while log::is_held() && alive.load(Ordering::Acquire) {
        match event::poll(KEY_WAIT) {
            Ok(false) => continue,
            // It is the next one's, who finds it still there.
            Ok(true) if !alive.load(Ordering::Acquire) => return,
            Ok(true) => {}
            Err(_) => return,
        }
        let Ok(event) = event::read() else { return };
        match keys.event(&event) {
            Effect::None => {}
            Effect::Redraw => keys.redraw(),
            Effect::ExitNow => {
                restore();
                console::err("stopped at once: there is no report\n");
                signals::exit_at_once();
            }
        }
    }
}
