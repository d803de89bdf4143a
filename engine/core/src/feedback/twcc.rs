//! When packets arrived, by their transport-wide sequence numbers, as the sender asks to be told
//! (draft-holmer-rmcat-transport-wide-cc-extensions-01; libwebrtc
//! `modules/remote_bitrate_estimator/remote_estimator_proxy.cc` and `packet_arrival_map.cc`).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::rtcp;

/// Between two reports. libwebrtc adapts it to what a peer sends itself, from 50 to 250 ms; Chrome
/// that only receives was seen to send one every 62 ms.
pub(crate) const TWCC_INTERVAL: Duration = Duration::from_millis(62);
/// Most sequence numbers kept. Of more the oldest are not reported.
pub(crate) const TWCC_PACKETS_MAX: usize = 4_096;
/// How long arrivals are kept once reported: what is overtaken by less is reported again from there
/// on (libwebrtc `kBackWindow`).
const BACK_WINDOW_US: i64 = 500_000;
/// Longest report, so that it fits a datagram; the rest follows in another one.
const REPORT_BYTES_MAX: usize = 1_100;
/// RTCP header, SSRCs and the report's own head.
const HEAD_BYTES: usize = 20;
/// A tick of a delta in microseconds, and of the reference time (§3.1.1).
const TICK_US: i64 = 250;
const REFERENCE_US: i64 = 64_000;
/// Most packets that a run-length chunk stands for (13 bits).
const RUN_MAX: usize = 0x1fff;
/// Not received.
const MISSING: i64 = i64::MIN;

const FORMAT: u8 = 15;

/// Arrivals of one peer connection.
#[derive(Debug)]
pub(crate) struct TransportCc {
    /// Times are counted from it.
    base: Instant,
    /// When the packet before came, and the same in microseconds: packets that came as one segment have
    /// one time.
    latest: (Instant, i64),
    /// Sequence number of the first of `arrivals`, unwrapped.
    begin: i64,
    /// In microseconds, or [`MISSING`].
    arrivals: VecDeque<i64>,
    /// The first to report; after it everything is reported, also again.
    unreported: i64,
    reports: u8,
    /// A video SSRC that was received: livekit-server looks at no other (pkg/sfu/downtrack.go).
    media: u32,
    /// Reports are due at this or a whole number of intervals later.
    grid: Instant,
    due: Option<Instant>,
}

impl TransportCc {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            base: now,
            latest: (now, 0),
            begin: 0,
            arrivals: VecDeque::new(),
            unreported: 0,
            reports: 0,
            media: 0,
            grid: now,
            due: None,
        }
    }

    /// Takes a packet; returns when a report is due. `video` is its SSRC if it is one of video.
    pub(crate) fn packet(&mut self, now: Instant, sequence: u16, video: Option<u32>) -> Instant {
        self.media = video.unwrap_or(self.media);
        if now != self.latest.0 {
            self.latest = (now, self.since_base_us(now));
        }
        self.enter(sequence, self.latest.1);
        match self.due {
            Some(due) => due,
            None => {
                let behind = now.saturating_duration_since(self.grid).as_micros();
                let intervals = behind.div_ceil(TWCC_INTERVAL.as_micros()).max(1);
                let intervals = u32::try_from(intervals).unwrap_or(u32::MAX);
                let due = self.grid + TWCC_INTERVAL * intervals;
                self.due = Some(due);
                due
            }
        }
    }

    /// Hands the reports that are due to `send`, with the SSRC that they are about; returns when the
    /// next one is.
    pub(crate) fn poll(
        &mut self,
        now: Instant,
        sender: u32,
        send: &mut dyn FnMut(u32, &[u8]),
    ) -> Option<Instant> {
        let due = self.due?;
        if due > now {
            return Some(due);
        }
        self.due = None;
        self.grid = now;
        let mut report = Vec::with_capacity(128);
        while self.report(sender, &mut report) {
            send(self.media, &report);
            report.clear();
        }
        None
    }

    fn since_base_us(&self, now: Instant) -> i64 {
        let micros = |duration: Duration| {
            (duration.as_secs() as i64).saturating_mul(1_000_000)
                + i64::from(duration.subsec_micros())
        };
        match now.checked_duration_since(self.base) {
            Some(since) => micros(since),
            None => -micros(self.base - now),
        }
    }

    fn end(&self) -> i64 {
        self.begin + self.arrivals.len() as i64
    }

    fn enter(&mut self, sequence: u16, arrived_us: i64) {
        if self.arrivals.is_empty() {
            let ahead = sequence.wrapping_sub(self.begin as u16);
            self.begin += i64::from(ahead.cast_signed());
            self.unreported = self.begin;
            self.arrivals.push_back(arrived_us);
            return;
        }
        let latest = self.end() - 1;
        let ahead = sequence.wrapping_sub(latest as u16).cast_signed();
        let sequence = latest + i64::from(ahead);
        if self.unreported > latest {
            self.forget_before(sequence, arrived_us - BACK_WINDOW_US);
        }
        if sequence < self.begin {
            let missing = (self.begin - sequence) as usize;
            if self.arrivals.len() + missing > TWCC_PACKETS_MAX {
                return;
            }
            (0..missing).for_each(|_| self.arrivals.push_front(MISSING));
            self.begin = sequence;
        } else if sequence >= self.end() {
            let missing = (sequence - self.end()) as usize;
            if missing >= TWCC_PACKETS_MAX {
                self.arrivals.clear();
                self.begin = sequence;
            } else if missing > 0 {
                self.arrivals.extend(std::iter::repeat_n(MISSING, missing));
            }
            self.arrivals.push_back(MISSING);
            let excess = self.arrivals.len().saturating_sub(TWCC_PACKETS_MAX);
            if excess > 0 {
                self.arrivals.drain(..excess);
                self.begin += excess as i64;
            }
        }
        self.unreported = self.unreported.min(sequence).max(self.begin);
        let at = (sequence - self.begin) as usize;
        // Only the first of its number counts.
        if let Some(arrival) = self.arrivals.get_mut(at).filter(|arrival| **arrival == MISSING) {
            *arrival = arrived_us;
        }
    }

    /// Forgets what arrived until then, up to this number.
    fn forget_before(&mut self, sequence: i64, until_us: i64) {
        let room = (sequence - self.begin).max(0) as usize;
        let old = self.arrivals.iter().take(room).take_while(|&&at| at <= until_us).count();
        // One stays: numbers are unwrapped by it.
        let old = old.min(self.arrivals.len().saturating_sub(1));
        if old > 0 {
            self.arrivals.drain(..old);
            self.begin += old as i64;
        }
    }

    /// Writes a report from the first unreported number on; false if there is none.
    fn report(&mut self, sender: u32, out: &mut Vec<u8>) -> bool {
        let first = (self.unreported - self.begin).max(0) as usize;
        let mut arrivals = self.arrivals.range(first.min(self.arrivals.len())..).enumerate();
        let received = |(_, at): &(usize, &i64)| **at != MISSING;
        let Some((at, &arrived_us)) = arrivals.find(received) else {
            self.unreported = self.end();
            return false;
        };
        let reference = arrived_us.div_euclid(REFERENCE_US);
        let mut last_tick = reference * (REFERENCE_US / TICK_US);
        let (mut symbols, mut deltas) = (Vec::with_capacity(32), Vec::with_capacity(64));
        let mut next = Some((at, &arrived_us));
        while let Some((at, &arrived_us)) = next {
            let tick = (arrived_us + TICK_US / 2).div_euclid(TICK_US);
            let Ok(delta) = i16::try_from(tick - last_tick) else { break };
            // A chunk has no less than seven symbols, unless it is the last one.
            let chunks_bytes = 2 * (symbols.len() / 7 + 2);
            if HEAD_BYTES + deltas.len() + 2 + chunks_bytes > REPORT_BYTES_MAX {
                break;
            }
            symbols.resize(at, Symbol::Missing);
            match u8::try_from(delta) {
                Ok(small) => {
                    symbols.push(Symbol::Small);
                    deltas.push(small);
                }
                Err(_) => {
                    symbols.push(Symbol::Large);
                    deltas.extend_from_slice(&delta.to_be_bytes());
                }
            }
            last_tick = tick;
            next = arrivals.find(received);
        }
        let base = self.begin + first as i64;
        self.unreported = base + symbols.len() as i64;
        let begin = out.len();
        rtcp::header(out, FORMAT, rtcp::TRANSPORT_FEEDBACK, 0);
        out.extend_from_slice(&sender.to_be_bytes());
        out.extend_from_slice(&self.media.to_be_bytes());
        out.extend_from_slice(&(base as u16).to_be_bytes());
        out.extend_from_slice(&(symbols.len() as u16).to_be_bytes());
        let head = (reference as u32) << 8 | u32::from(self.reports);
        out.extend_from_slice(&head.to_be_bytes());
        self.reports = self.reports.wrapping_add(1);
        write_chunks(&symbols, out);
        out.extend_from_slice(&deltas);
        // To a whole word; the padding's last byte is its length (RFC 3550 §6.4.1).
        let padding = (out.len() - begin).next_multiple_of(4) - (out.len() - begin);
        if padding > 0 {
            out[begin] |= 0x20;
            out.resize(out.len() + padding - 1, 0);
            out.push(padding as u8);
        }
        let words = ((out.len() - begin) / 4 - 1) as u16;
        out[begin + 2..begin + 4].copy_from_slice(&words.to_be_bytes());
        true
    }
}

/// What is said of a packet (§3.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Symbol {
    Missing = 0,
    /// With a delta of one byte.
    Small = 1,
    /// With a delta of two bytes, which may be negative.
    Large = 2,
}

/// Appends packet chunks (§3.1.2 to §3.1.4).
fn write_chunks(mut symbols: &[Symbol], out: &mut Vec<u8>) {
    while let Some(&first) = symbols.first() {
        let run = symbols.iter().take(RUN_MAX).take_while(|&&symbol| symbol == first).count();
        let short = symbols.iter().take(14);
        let one_bit = short.take_while(|&&symbol| symbol != Symbol::Large).count();
        let vector = if one_bit >= 14.min(symbols.len()) { one_bit } else { 7.min(symbols.len()) };
        let (chunk, taken) = if run >= vector {
            ((first as u16) << 13 | run as u16, run)
        } else if vector == one_bit && one_bit > 7 {
            let bits = symbols.iter().take(14).enumerate();
            let bits = bits.map(|(at, &symbol)| (symbol as u16) << (13 - at));
            (0x8000 | bits.fold(0, |bits, bit| bits | bit), vector)
        } else {
            let bits = symbols.iter().take(7).enumerate();
            let bits = bits.map(|(at, &symbol)| (symbol as u16) << (12 - 2 * at));
            (0xc000 | bits.fold(0, |bits, bit| bits | bit), vector)
        };
        out.extend_from_slice(&chunk.to_be_bytes());
        symbols = &symbols[taken..];
    }
}

#[cfg(test)]
mod tests;
