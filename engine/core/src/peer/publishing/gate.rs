//! Whether the frames of a layer are sent.

/// Decides over the frames of one layer.
#[derive(Debug, Clone, Copy)]
pub(super) struct LayerGate {
    /// What the server said last.
    pub(super) wanted: bool,
    /// Held back because nobody wants it.
    pub(super) paused: bool,
    pub(super) muted: bool,
    /// Held back because the way to the server has no room for it.
    congested: bool,
    /// Frames until the next keyframe are of no use to anybody.
    keyframe_due: bool,
}

impl Default for LayerGate {
    fn default() -> Self {
        Self { wanted: true, paused: false, muted: false, congested: false, keyframe_due: false }
    }
}

impl LayerGate {
    /// Whether a frame is sent.
    pub(super) fn lets_pass(&mut self, keyframe: bool) -> bool {
        if self.is_held() {
            self.keyframe_due = true;
            return false;
        }
        if self.keyframe_due && !keyframe {
            return false;
        }
        self.keyframe_due = false;
        true
    }

    /// Changes it; true if frames flow again, and a keyframe is needed.
    pub(super) fn change(&mut self, change: impl FnOnce(&mut Self)) -> bool {
        let held = self.is_held();
        change(self);
        held && !self.is_held()
    }

    fn is_held(&self) -> bool {
        self.paused || self.muted || self.congested
    }

    /// False while it is held back whatever room there is.
    pub(super) fn is_wanted(&self) -> bool {
        !(self.paused || self.muted)
    }

    pub(super) fn has_room(&self) -> bool {
        !self.congested
    }

    pub(super) fn set_room(&mut self, has_room: bool) {
        self.congested = !has_room;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_comes_back_with_a_keyframe() {
        let mut gate = LayerGate::default();
        assert!(gate.lets_pass(false));
        assert!(!gate.change(|gate| gate.paused = true));
        assert!(!gate.lets_pass(true));
        assert!(!gate.change(|gate| gate.muted = true));
        assert!(!gate.change(|gate| gate.paused = false), "still muted");
        assert!(gate.change(|gate| gate.muted = false));
        assert!(!gate.lets_pass(false));
        assert!(gate.lets_pass(true) && gate.lets_pass(false));
    }

    #[test]
    fn a_pause_that_no_frame_fell_into_costs_none() {
        let mut gate = LayerGate::default();
        gate.change(|gate| gate.paused = true);
        gate.change(|gate| gate.paused = false);
        assert!(gate.lets_pass(false));
    }
}
