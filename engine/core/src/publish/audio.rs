//! What of an audio track becomes packets: silence is left out (DTX), and what is sent has the payload
//! before it in front (RED), as libwebrtc sends Opus.

use std::sync::Arc;

use stampede_media::{opus, red};

/// A frame of so many bytes says that nothing follows: of such frames the first is sent and the others
/// are not (libwebrtc `modules/audio_coding/codecs/opus/opus_interface.cc`, `WebRtcOpus_Encode`).
const SILENT_BYTES_MAX: usize = 2;
/// Silent frames that an encoder still codes (libopus `silk/define.h`, `NB_SPEECH_FRAMES_BEFORE_DTX`).
const CODED_BEFORE_SILENCE: u32 = 10;
/// Then so many that say that nothing follows (`MAX_CONSECUTIVE_DTX`): 400 ms of frames of 20 ms. The
/// one behind them is coded, so that the noise of a decoder stays like that of the room.
const SILENT_AT_A_TIME: u32 = 20;

/// How audio is to be sent. A server may refuse either.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AudioOptions {
    /// Each packet brings the payload of the one before too (RFC 2198).
    pub red: bool,
    /// Silence is left out (RFC 7587 §3.1.3).
    pub dtx: bool,
}

/// The frames of an audio track on their way into packets. Pure.
#[derive(Debug, Clone, Default)]
pub struct AudioFrames {
    /// What was agreed on.
    agreed: AudioOptions,
    /// Payload type of Opus within redundant audio.
    payload_type: u8,
    /// How many frames in a row the source was silent.
    silent: u32,
    /// The last frame said that nothing follows.
    nothing_follows: bool,
    /// The payload before this one, and its RTP timestamp.
    previous: Option<(u32, Arc<[u8]>)>,
}

/// The payload of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AudioPayload {
    /// Its bytes.
    pub payload: Arc<[u8]>,
    /// They are redundant audio, not plain Opus.
    pub red: bool,
}

impl AudioFrames {
    /// What the server has agreed on; `payload_type` is that of Opus.
    pub fn new(agreed: AudioOptions, payload_type: u8) -> Self {
        Self { agreed, payload_type, ..Self::default() }
    }

    /// What to send of the next frame; `None` if it is left out. `silent`: its source says nothing
    /// at this moment.
    pub fn next(
        &mut self,
        timestamp: u32,
        frame: &Arc<[u8]>,
        silent: bool,
    ) -> Option<AudioPayload> {
        let frame =
            if self.agreed.dtx { self.discontinuous(frame, silent)? } else { frame.clone() };
        if !self.agreed.red {
            return Some(AudioPayload { payload: frame, red: false });
        }
        let previous = self.previous.as_ref();
        let previous =
            previous.map(|(then, payload)| (timestamp.wrapping_sub(*then), &payload[..]));
        let wrapped = red::wrap(self.payload_type, &frame, previous);
        self.previous = wrapped.is_some().then(|| (timestamp, frame.clone()));
        Some(match wrapped {
            Some(payload) => AudioPayload { payload: payload.into(), red: true },
            None => AudioPayload { payload: frame, red: false },
        })
    }

    /// What an encoder with DTX makes of a frame; `None` if that is not sent.
    fn discontinuous(&mut self, frame: &Arc<[u8]>, silent: bool) -> Option<Arc<[u8]>> {
        let place = if silent { self.silent } else { 0 };
        self.silent = if silent { self.silent.wrapping_add(1) } else { 0 };
        let turn = place.checked_sub(CODED_BEFORE_SILENCE).map(|it| it % (SILENT_AT_A_TIME + 1));
        let nothing = match turn.filter(|_| silent) {
            Some(turn) => turn < SILENT_AT_A_TIME,
            None => !silent && frame.len() <= SILENT_BYTES_MAX,
        };
        if nothing && std::mem::replace(&mut self.nothing_follows, true) {
            return None;
        }
        self.nothing_follows = nothing;
        Some(match (silent, nothing) {
            (false, _) => frame.clone(),
            // No more than its first byte.
            (true, true) => opus::silence(frame).iter().take(1).copied().collect(),
            (true, false) => opus::silence(frame).into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stampede_media::Red;

    const OPUS: u8 = 111;
    const TICKS: u32 = 960;

    fn frames(red: bool, dtx: bool) -> AudioFrames {
        AudioFrames::new(AudioOptions { red, dtx }, OPUS)
    }

    fn speech(number: u32) -> Arc<[u8]> {
        Arc::from([&[0xfc][..], &number.to_be_bytes()].concat())
    }

    /// The frames of these numbers that are sent, and how long each is.
    fn sent(
        frames: &mut AudioFrames,
        numbers: std::ops::Range<u32>,
        silent: bool,
    ) -> Vec<(u32, usize)> {
        let next = |number: u32| frames.next(number * TICKS, &speech(number), silent);
        let mut next = next;
        numbers.filter_map(|number| Some((number, next(number)?.payload.len()))).collect()
    }

    #[test]
    fn silence_is_two_packets_each_420_ms_as_libopus_has_it() {
        let mut frames = frames(false, true);
        assert_eq!(sent(&mut frames, 0..5, false).len(), 5);
        let silence = sent(&mut frames, 5..5 + 10 + 3 * 21, true);
        let coded = (5..15).map(|number| (number, 3));
        let turns = (0..3).flat_map(|turn| [(15 + turn * 21, 1), (35 + turn * 21, 3)]);
        assert_eq!(silence, coded.chain(turns).collect::<Vec<_>>());
        assert_eq!(sent(&mut frames, 78..80, false), [(78, 5), (79, 5)], "speech again");
        // And again it takes 200 ms until silence is left out.
        assert_eq!(sent(&mut frames, 80..95, true).len(), 11);
    }

    #[test]
    fn without_dtx_everything_is_sent_as_it_is() {
        let mut frames = frames(false, false);
        assert_eq!(sent(&mut frames, 0..100, true).len(), 100);
        assert_eq!(frames.next(0, &speech(7), true).unwrap().payload, speech(7));
    }

    #[test]
    fn of_a_file_with_dtx_the_first_of_such_frames_in_a_row_is_sent() {
        let mut frames = frames(false, true);
        let nothing: Arc<[u8]> = Arc::from([0xfc]);
        let files = [speech(0), nothing.clone(), nothing.clone(), nothing, speech(4)];
        let sent = (0..).zip(&files).filter(|(number, frame)| {
            frames.next(number * TICKS, frame, false).is_some_and(|it| it.payload == **frame)
        });
        assert_eq!(sent.map(|(number, _)| number).collect::<Vec<u32>>(), [0, 1, 4]);
    }

    #[test]
    fn each_packet_has_the_one_before_in_front_unless_silence_is_between() {
        let mut frames = frames(true, true);
        let mut packets = Vec::new();
        for number in 0..60 {
            let silent = (10..50).contains(&number);
            if let Some(packet) = frames.next(number * TICKS, &speech(number), silent) {
                assert!(packet.red);
                packets.push((number, packet.payload));
            }
        }
        let mut last: Option<(u32, Vec<u8>)> = None;
        let (mut with, mut without) = (0, Vec::new());
        for (number, payload) in packets {
            let red = Red::parse(&payload).unwrap();
            match (red.redundant().next(), &last) {
                (Some(block), Some((before, primary))) => {
                    assert_eq!(block.timestamp_offset, (number - before) * TICKS);
                    assert_eq!(block.payload, &primary[..]);
                    with += 1;
                }
                _ => without.push(number),
            }
            last = Some((number, red.primary.to_vec()));
        }
        // Of 33 packets the first, and the one behind 400 ms; speech breaks the second silence off.
        assert_eq!((with, without), (31, vec![0, 40]));
    }

    #[test]
    fn what_is_too_long_goes_as_it_is() {
        let mut frames = frames(true, false);
        let long: Arc<[u8]> = Arc::from([1; 1_100]);
        assert!(!frames.next(0, &long, false).unwrap().red);
        let after = frames.next(TICKS, &speech(1), false).unwrap();
        assert_eq!(Red::parse(&after.payload).unwrap().redundant().count(), 0);
    }
}
