//! What keys do: shared by the thread that reads them and the view.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use stampede_engine::WorstBy;
use stampede_run::Controls;

/// What keys have asked of the view; what they ask of the run goes to its controls.
#[derive(Debug, Clone)]
pub(super) struct Keys(Arc<State>);

#[derive(Debug)]
struct State {
    controls: Arc<Controls>,
    sort: AtomicUsize,
    help: AtomicBool,
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

impl Keys {
    /// Keys of the run that these control.
    pub(super) fn new(controls: Arc<Controls>) -> Self {
        let (sort, help) = (AtomicUsize::new(0), AtomicBool::new(false));
        Self(Arc::new(State { controls, sort, help }))
    }

    /// Order of the worst peers.
    pub(super) fn sort(&self) -> WorstBy {
        WorstBy::ALL[self.0.sort.load(Ordering::Relaxed) % WorstBy::ALL.len()]
    }

    /// True while the help is shown.
    pub(super) fn help(&self) -> bool {
        self.0.help.load(Ordering::Relaxed)
    }

    /// Has all shown anew at once.
    pub(super) fn redraw(&self) {
        self.0.controls.changed.notify_one();
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
            KeyCode::Char('p') => self.0.controls.toggle_pause(),
            KeyCode::Char('c') => self.0.controls.want_capture(),
            KeyCode::Char('s') => {
                self.0.sort.fetch_add(1, Ordering::Relaxed);
            }
            KeyCode::Char('?' | 'h') => {
                self.0.help.fetch_xor(true, Ordering::Relaxed);
            }
            KeyCode::Esc => self.0.help.store(false, Ordering::Relaxed),
            _ => return Effect::None,
        }
        Effect::Redraw
    }

    fn stop_key(&self) -> Effect {
        if self.0.controls.stop() { Effect::Redraw } else { Effect::ExitNow }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(keys: &Keys, code: KeyCode, modifiers: KeyModifiers) -> Effect {
        keys.key(KeyEvent::new(code, modifiers))
    }

    #[test]
    fn a_new_size_draws_and_nothing_else_does() {
        let controls = Arc::new(Controls::default());
        let keys = Keys::new(Arc::clone(&controls));
        assert_eq!(keys.event(&Event::Resize(40, 10)), Effect::Redraw);
        assert_eq!(keys.event(&Event::FocusGained), Effect::None);
        assert_eq!(keys.event(&Event::Paste("qpc".to_owned())), Effect::None);
        assert!(!controls.paused() && !controls.take_capture() && !controls.is_stopping());
    }

    #[test]
    fn each_key_does_its_own_once_a_press() {
        let controls = Arc::new(Controls::default());
        let keys = Keys::new(Arc::clone(&controls));
        let key = |code, kind| {
            let key = KeyEvent::new_with_kind(code, KeyModifiers::NONE, kind);
            keys.event(&Event::Key(key))
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
        assert_eq!(keys.event(&Event::Key(control_p)), Effect::None);
        assert!(controls.paused() && !controls.is_stopping());
    }

    #[test]
    fn keys_stop_pause_and_sort() {
        let controls = Arc::new(Controls::default());
        let keys = Keys::new(Arc::clone(&controls));
        let none = KeyModifiers::NONE;
        assert_eq!(press(&keys, KeyCode::Char('p'), none), Effect::Redraw);
        assert!(controls.paused());
        press(&keys, KeyCode::Char('p'), none);
        assert!(!controls.paused());
        assert_eq!(keys.sort(), WorstBy::Unrecovered);
        press(&keys, KeyCode::Char('s'), none);
        assert_eq!(keys.sort(), WorstBy::Missing);
        for _ in 1..WorstBy::ALL.len() {
            press(&keys, KeyCode::Char('s'), none);
        }
        assert_eq!(keys.sort(), WorstBy::Unrecovered);
        press(&keys, KeyCode::Char('?'), KeyModifiers::SHIFT);
        assert!(keys.help());
        press(&keys, KeyCode::Esc, none);
        assert!(!keys.help());
        assert_eq!(press(&keys, KeyCode::Char('x'), none), Effect::None);
        assert!(!controls.take_capture());
        press(&keys, KeyCode::Char('c'), none);
        assert!(controls.take_capture() && !controls.take_capture());
        assert!(!controls.is_stopping());
    }

    #[test]
    fn the_first_stop_is_graceful_and_the_second_is_not() {
        for (code, modifiers) in
            [(KeyCode::Char('q'), KeyModifiers::NONE), (KeyCode::Char('c'), KeyModifiers::CONTROL)]
        {
            let controls = Arc::new(Controls::default());
            let keys = Keys::new(Arc::clone(&controls));
            assert_eq!(press(&keys, code, modifiers), Effect::Redraw);
            assert!(controls.is_stopping());
            assert_eq!(press(&keys, code, modifiers), Effect::ExitNow);
        }
    }
}
