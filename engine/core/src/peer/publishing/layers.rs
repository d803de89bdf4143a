//! Which layers are sent: all, unless the server says that nobody wants one, or muted the track, or
//! there is no room for them (`adapt`).

use super::track::TxTrack;

impl TxTrack {
    /// Which of low, medium and high anybody subscribes to (livekit_rtc.proto
    /// `SubscribedQualityUpdate`). A track of one layer is wanted as long as any of them is.
    pub(super) fn layers_wanted(&mut self, wanted: [bool; 3], obey: bool) {
        let single = self.layers.len() == 1;
        for index in 0..self.layers.len() {
            let wanted = match wanted.get(index) {
                _ if single => wanted.contains(&true),
                Some(&wanted) => wanted,
                None => continue,
            };
            let layer = &mut self.layers[index];
            layer.counted.layer_pauses += u64::from(layer.gate.wanted && !wanted);
            let resumes = layer.gate.change(|gate| {
                gate.wanted = wanted;
                gate.paused = obey && !wanted;
            });
            self.resume(index, resumes);
        }
    }

    /// The server wants a keyframe of a layer.
    pub(super) fn keyframe_requested(&mut self, index: usize) {
        self.layers[index].counted.pli_received += 1;
        if let Some(schedule) = &mut self.schedule {
            schedule.request_keyframe(index);
        }
    }

    /// The server muted or unmuted the track.
    pub(super) fn set_muted(&mut self, muted: bool) {
        for index in 0..self.layers.len() {
            let resumes = self.layers[index].gate.change(|gate| gate.muted = muted);
            self.resume(index, resumes);
        }
    }

    pub(super) fn resume(&mut self, index: usize, resumes: bool) {
        if resumes && let Some(schedule) = &mut self.schedule {
            schedule.request_keyframe(index);
        }
    }
}
