//! What keys do: shared by the thread that reads them, the view and the run.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use stampede_engine::WorstBy;
use tokio::sync::{Notify, watch};

/// What the user has asked for with keys.
#[derive(Debug)]
pub(crate) struct Controls {
    interrupt: watch::Sender<bool>,
    paused: AtomicBool,
    sort: AtomicUsize,
    help: AtomicBool,
    capture: AtomicBool,
    /// Woken by each key that did something.
    pub changed: Notify,
}

/// What is left to do for whoever read a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing.
    None,
    /// Draw again.
    Redraw,
    /// The user is tired of waiting: end the process.
    ExitNow,
}

impl Controls {
    /// `interrupt` is what a first SIGINT sets, too.
    pub(crate) fn new(interrupt: watch::Sender<bool>) -> Self {
        Self {
            interrupt,
            paused: AtomicBool::new(false),
            sort: AtomicUsize::new(0),
            help: AtomicBool::new(false),
            capture: AtomicBool::new(false),
            changed: Notify::new(),
        }
    }

    /// True while the ramp shall start nobody.
    pub(crate) fn paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    /// Order of the worst peers.
    pub(crate) fn sort(&self) -> WorstBy {
        WorstBy::ALL[self.sort.load(Ordering::Relaxed) % WorstBy::ALL.len()]
    }

    /// True while the help is shown.
    pub(crate) fn help(&self) -> bool {
        self.help.load(Ordering::Relaxed)
    }

    /// Asks the flight recorder for what it has.
    pub(crate) fn want_capture(&self) {
        self.capture.store(true, Ordering::Relaxed);
        self.changed.notify_one();
    }

    /// True if it was asked for since the last call.
    pub(crate) fn take_capture(&self) -> bool {
        self.capture.swap(false, Ordering::Relaxed)
    }

    /// Ends the run gracefully; false if that was asked for before.
    pub(crate) fn stop(&self) -> bool {
        // A stopping run starts nobody; a pause must not hold it.
        !self.interrupt.send_replace(true)
    }

    /// Acts on what the terminal says: a key, or its new size, in which all is drawn anew at once.
    pub(super) fn event(&self, event: &Event) -> Effect {
        match event {
            Event::Key(key) => self.key(*key),
            Event::Resize(..) => Effect::Redraw,
            _ => Effect::None,
        }
    }

    fn key(&self, key: KeyEvent) -> Effect {
        if key.kind == KeyEventKind::Release {
            return Effect::None;
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if control => return self.stop_key(),
            KeyCode::Char(_) if control => return Effect::None,
            KeyCode::Char('q') => return self.stop_key(),
            KeyCode::Char('p') => {
                self.paused.fetch_xor(true, Ordering::Relaxed);
            }
            KeyCode::Char('c') => self.capture.store(true, Ordering::Relaxed),
            KeyCode::Char('s') => {
                self.sort.fetch_add(1, Ordering::Relaxed);
            }
            KeyCode::Char('?' | 'h') => {
                self.help.fetch_xor(true, Ordering::Relaxed);
            }
            KeyCode::Esc => self.help.store(false, Ordering::Relaxed),
            _ => return Effect::None,
        }
        Effect::Redraw
    }

    fn stop_key(&self) -> Effect {
        if self.stop() { Effect::Redraw } else { Effect::ExitNow }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(controls: &Controls, code: KeyCode, modifiers: KeyModifiers) -> Effect {
        controls.key(KeyEvent::new(code, modifiers))
    }

    #[test]
    fn a_new_size_draws_and_nothing_else_does() {
        let controls = Controls::new(watch::Sender::new(false));
        assert_eq!(controls.event(&Event::Resize(40, 10)), Effect::Redraw);
        assert_eq!(controls.event(&Event::FocusGained), Effect::None);
        assert_eq!(controls.event(&Event::Paste("qpc".to_owned())), Effect::None);
        assert!(!controls.paused() && !controls.take_capture() && !*controls.interrupt.borrow());
    }

    #[test]
    fn each_key_does_its_own_once_a_press() {
        let controls = Controls::new(watch::Sender::new(false));
        let key = |code, kind| {
            let key = KeyEvent::new_with_kind(code, KeyModifiers::NONE, kind);
            controls.event(&Event::Key(key))
        };
        let (p, c) = (KeyCode::Char('p'), KeyCode::Char('c'));
        assert_eq!(key(p, KeyEventKind::Press), Effect::Redraw);
        assert_eq!(key(p, KeyEventKind::Release), Effect::None);
        assert!(controls.paused(), "a release is no second press");
        assert!(!controls.take_capture(), "p is no c");
        assert_eq!(key(c, KeyEventKind::Press), Effect::Redraw);
        assert_eq!(key(c, KeyEventKind::Release), Effect::None);
        assert!(controls.take_capture() && !controls.take_capture(), "asked for once");
        assert!(controls.paused(), "c leaves the pause");
        let control_p = KeyEvent::new(p, KeyModifiers::CONTROL);
        assert_eq!(controls.event(&Event::Key(control_p)), Effect::None);
        assert!(controls.paused() && !*controls.interrupt.borrow());
    }

    #[test]
    fn keys_stop_pause_and_sort() {
        let interrupt = watch::Sender::new(false);
        let controls = Controls::new(interrupt.clone());
        let none = KeyModifiers::NONE;
        assert_eq!(press(&controls, KeyCode::Char('p'), none), Effect::Redraw);
        assert!(controls.paused());
        press(&controls, KeyCode::Char('p'), none);
        assert!(!controls.paused());
        assert_eq!(controls.sort(), WorstBy::Unrecovered);
        press(&controls, KeyCode::Char('s'), none);
        assert_eq!(controls.sort(), WorstBy::Missing);
        for _ in 1..WorstBy::ALL.len() {
            press(&controls, KeyCode::Char('s'), none);
        }
        assert_eq!(controls.sort(), WorstBy::Unrecovered);
        press(&controls, KeyCode::Char('?'), KeyModifiers::SHIFT);
        assert!(controls.help());
        press(&controls, KeyCode::Esc, none);
        assert!(!controls.help());
        assert_eq!(press(&controls, KeyCode::Char('x'), none), Effect::None);
        assert!(!controls.take_capture());
        press(&controls, KeyCode::Char('c'), none);
        assert!(controls.take_capture() && !controls.take_capture());
        assert!(!*interrupt.borrow());
    }

    #[test]
    fn the_first_stop_is_graceful_and_the_second_is_not() {
        for (code, modifiers) in
            [(KeyCode::Char('q'), KeyModifiers::NONE), (KeyCode::Char('c'), KeyModifiers::CONTROL)]
        {
            let interrupt = watch::Sender::new(false);
            let controls = Controls::new(interrupt.clone());
            assert_eq!(press(&controls, code, modifiers), Effect::Redraw);
            assert!(*interrupt.borrow());
            assert_eq!(press(&controls, code, modifiers), Effect::ExitNow);
        }
    }
}
