//! Times and spans as packets have them. Pure.

use std::time::Duration;

/// Seconds from 1900, where NTP counts from, to 1970.
pub const NTP_UNIX_S: u64 = 2_208_988_800;

/// 64-bit NTP time: seconds since 1900 and their binary fraction (RFC 3550 §4).
#[must_use]
pub fn ntp(since_epoch: Duration) -> u64 {
    // Rounded up: reading it back cuts, and has to find the nanosecond it was.
    let fraction = (u64::from(since_epoch.subsec_nanos()) << 32).div_ceil(1_000_000_000);
    (since_epoch.as_secs() + NTP_UNIX_S) << 32 | fraction
}

/// Nanoseconds since the Unix epoch of a 64-bit NTP time; `None` before 1970.
pub(crate) fn unix_ns(ntp: u64) -> Option<u64> {
    let seconds = (ntp >> 32).checked_sub(NTP_UNIX_S)?;
    let fraction_ns = ((ntp & 0xffff_ffff) * 1_000_000_000) >> 32;
    Some(seconds * 1_000_000_000 + fraction_ns)
}

/// abs-send-time, of a clock that shows `since`: 24 bits of seconds, 18 of them behind the point.
#[must_use]
pub fn abs_send_time(since: Duration) -> [u8; 3] {
    let ns = since.as_nanos() as u64 % (64 * 1_000_000_000);
    let [.., first, second, third] = ((ns << 18) / 1_000_000_000).to_be_bytes();
    [first, second, third]
}

/// What an RTP timestamp grows by in so long.
#[must_use]
pub fn ticks(span: Duration, clock_rate: u32) -> u32 {
    (span.as_micros() * u128::from(clock_rate) / 1_000_000) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sending_times_count_in_parts_of_a_second_and_wrap() {
        let of = |ms: u64| {
            let [a, b, c] = abs_send_time(Duration::from_millis(ms));
            u32::from_be_bytes([0, a, b, c])
        };
        assert_eq!((of(0), of(1_000), of(1_500)), (0, 1 << 18, 3 << 17));
        assert_eq!((of(63_999), of(64_000)), (0xff_fef9, 0));
    }

    #[test]
    fn ntp_counts_from_1900() {
        let since = Duration::new(1, 500_000_000);
        assert_eq!(ntp(since), (NTP_UNIX_S + 1) << 32 | 1 << 31);
        assert_eq!(unix_ns(ntp(since)), Some(1_500_000_000));
    }
}
