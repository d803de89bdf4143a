//! When who was connected tries to come back: livekit-client's schedule. Pure.

use std::time::Duration;

/// Pauses before the tries, each counted since the connection last stood
/// (client-sdk-js src/room/DefaultReconnectPolicy.ts). Further tries wait as long as the last.
const PAUSES_MS: [u64; 10] = [0, 300, 1_200, 2_700, 4_800, 7_000, 7_000, 7_000, 7_000, 7_000];
/// From this try on up to [`JITTER_MAX`] is added, so that thousands do not come at once.
const JITTER_FROM: u32 = 2;
const JITTER_MAX: Duration = Duration::from_secs(1);
/// How long session and media connection may take to stand again after a new websocket opened
/// (client-sdk-js src/room/defaults.ts, `peerConnectionTimeout`).
pub(crate) const STANDS_WITHIN: Duration = Duration::from_secs(15);

/// The pause before the next try after so many; `None` once `tries_max` were made. `jitter` is of
/// 0 to 1.
pub(crate) fn pause(tried: u32, tries_max: u32, jitter: f64) -> Option<Duration> {
    if tried >= tries_max {
        return None;
    }
    let last = PAUSES_MS[PAUSES_MS.len() - 1];
    let pause_ms = PAUSES_MS.get(tried as usize).copied().unwrap_or(last);
    let jitter = if tried >= JITTER_FROM { JITTER_MAX.mul_f64(jitter) } else { Duration::ZERO };
    Some(Duration::from_millis(pause_ms) + jitter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_those_of_livekit_client() {
        let all = |tries_max, jitter: f64| -> Vec<u128> {
            (0..)
                .map_while(|tried| pause(tried, tries_max, jitter))
                .map(|p| p.as_millis())
                .collect()
        };
        let sdk = [0, 300, 1_200, 2_700, 4_800, 7_000, 7_000, 7_000, 7_000, 7_000];
        assert_eq!(all(10, 0.0), sdk);
        assert_eq!(all(3, 1.0), [0, 300, 2_200], "jitter from the third on");
        assert_eq!(all(12, 0.5)[9..], [7_500, 7_500, 7_500]);
        assert!(all(0, 0.0).is_empty());
    }
}
