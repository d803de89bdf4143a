//! What was written is read by str0m, and by a reader of our own.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Arrivals by sequence number in ticks, as one report says; everything in it that was missing is
/// `None`. Also the report's count.
fn read(report: &[u8]) -> (Vec<(u16, Option<i64>)>, u8) {
    let word = |at: usize| u16::from_be_bytes([report[at], report[at + 1]]);
    assert_eq!(report.len(), 4 * (usize::from(word(2)) + 1));
    assert_eq!((report[0] & 0x1f, report[1]), (15, 205));
    let padding = if report[0] & 0x20 != 0 { usize::from(report[report.len() - 1]) } else { 0 };
    let (base, count) = (word(12), usize::from(word(14)));
    let reference = u32::from_be_bytes([0, report[16], report[17], report[18]]);
    let (mut at, mut symbols) = (20, Vec::new());
    while symbols.len() < count {
        let chunk = word(at);
        at += 2;
        match chunk >> 14 {
            0b10 => symbols.extend((0..14).map(|bit| chunk >> (13 - bit) & 1)),
            0b11 => symbols.extend((0..7).map(|two| chunk >> (12 - 2 * two) & 3)),
            _ => symbols.extend(std::iter::repeat_n(chunk >> 13, usize::from(chunk & 0x1fff))),
        }
    }
    symbols.truncate(count);
    let mut tick = i64::from(reference) * 256;
    let mut packets = Vec::new();
    for (index, symbol) in symbols.into_iter().enumerate() {
        let delta = match symbol {
            0 => None,
            1 => Some(i64::from(report[at])),
            2 => Some(i64::from(word(at).cast_signed())),
            _ => panic!("symbol {symbol}"),
        };
        at += usize::from(symbol);
        packets.push((base.wrapping_add(index as u16), delta.map(|delta| tick + delta)));
        tick += delta.unwrap_or(0);
    }
    assert_eq!(at + padding, report.len());
    (packets, report[19])
}

fn reports(transport_cc: &mut TransportCc, now: Instant) -> Vec<Vec<u8>> {
    let mut reports = Vec::new();
    transport_cc.poll(now, 1, &mut |_, report| reports.push(report.to_vec()));
    reports
}

fn ms(value: u64) -> Duration {
    Duration::from_millis(value)
}

#[test]
fn reports_come_at_chromes_pace_and_only_while_packets_do() {
    let start = Instant::now();
    let mut transport_cc = TransportCc::new(start);
    assert_eq!(transport_cc.packet(start + ms(1), 7, Some(5)), start + TWCC_INTERVAL);
    assert_eq!(transport_cc.packet(start + ms(30), 9, None), start + TWCC_INTERVAL);
    assert!(reports(&mut transport_cc, start + ms(61)).is_empty());
    let sent = reports(&mut transport_cc, start + TWCC_INTERVAL);
    assert_eq!(sent.len(), 1);
    assert_eq!(read(&sent[0]), (vec![(7, Some(4)), (8, None), (9, Some(120))], 0));
    assert_eq!(sent[0][8..12], [0, 0, 0, 5], "about a video SSRC");
    assert!(reports(&mut transport_cc, start + ms(1_000)).is_empty());
    let due = transport_cc.packet(start + ms(1_000), 10, None);
    assert!(due > start + ms(1_000) && due <= start + ms(1_062));
    assert_eq!(read(&reports(&mut transport_cc, due)[0]).1, 1);
}

#[test]
fn what_was_overtaken_is_reported_from_there_on() {
    let start = Instant::now();
    let mut transport_cc = TransportCc::new(start);
    for (sequence, at) in [(65_534, 1), (65_535, 2), (1, 4)] {
        transport_cc.packet(start + ms(at), sequence, Some(5));
    }
    let sequences = |sent: &[Vec<u8>]| -> Vec<u16> {
        let read = sent.iter().flat_map(|report| read(report).0);
        read.filter(|packet| packet.1.is_some()).map(|packet| packet.0).collect()
    };
    assert_eq!(sequences(&reports(&mut transport_cc, start + ms(62))), [65_534, 65_535, 1]);
    transport_cc.packet(start + ms(70), 0, Some(5));
    assert_eq!(sequences(&reports(&mut transport_cc, start + ms(200))), [0, 1]);
}

#[test]
fn memory_and_reports_are_bounded() {
    let start = Instant::now();
    let mut transport_cc = TransportCc::new(start);
    for sequence in 0..20_000_u64 {
        transport_cc.packet(start + ms(sequence % 7), (sequence * 5) as u16, Some(5));
    }
    assert!(transport_cc.arrivals.len() <= TWCC_PACKETS_MAX);
    let sent = reports(&mut transport_cc, start + ms(100));
    assert!(sent.len() > 1 && sent.iter().all(|report| report.len() <= 1_120));
    // Reported ones are forgotten.
    transport_cc.packet(start + ms(5_000), 40_000, Some(5));
    transport_cc.packet(start + ms(5_000), 40_001, Some(5));
    assert!(transport_cc.arrivals.len() < 30_000);
}

proptest! {
    #[test]
    fn what_arrived_is_what_is_read(
        first in any::<u16>(),
        packets in prop::collection::vec(
            (0_u16..40, prop_oneof![0_u64..400, 0_u64..400, 0_u64..90_000, Just(9_000_000)]),
            1..300,
        ),
        swaps in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let start = Instant::now();
        let mut transport_cc = TransportCc::new(start);
        let (mut sequence, mut now) = (first, start);
        let mut arrivals = Vec::new();
        for (gap, micros) in packets {
            sequence = sequence.wrapping_add(gap.saturating_sub(30) + 1);
            now += Duration::from_micros(micros);
            arrivals.push((sequence, now));
        }
        for swap in swaps {
            let at = swap.index(arrivals.len());
            if at > 0 {
                let sequence = arrivals[at].0;
                arrivals[at].0 = arrivals[at - 1].0;
                arrivals[at - 1].0 = sequence;
            }
        }
        let (mut expected, mut seen) = (BTreeMap::new(), BTreeMap::new());
        let mut count = 0_u8;
        let mut collect = |transport_cc: &mut TransportCc, now| {
            for report in reports(transport_cc, now) {
                assert!(report.len() <= 1_120);
                str0m_reads(&report);
                let (packets, number) = read(&report);
                assert_eq!(number, count);
                count = count.wrapping_add(1);
                for (sequence, tick) in packets {
                    if let Some(tick) = tick {
                        seen.insert(sequence, tick);
                    }
                }
            }
        };
        for (sequence, at) in arrivals {
            collect(&mut transport_cc, at);
            transport_cc.packet(at, sequence, Some(5));
            let tick = ((at - start).as_micros() as i64 + 125).div_euclid(250);
            expected.entry(sequence).or_insert(tick % (1 << 32));
        }
        collect(&mut transport_cc, now + Duration::from_secs(1));
        // Of what is overtaken by more than the back window nothing need be said.
        for (sequence, tick) in &seen {
            prop_assert_eq!(expected.get(sequence), Some(tick));
        }
        prop_assert!(seen.len() * 10 >= expected.len() * 9);
    }
}

/// str0m takes the report for what it is.
fn str0m_reads(report: &[u8]) {
    let twcc = str0m::rtp::rtcp::Twcc::try_from(&report[4..]).unwrap();
    let (packets, number) = read(report);
    assert_eq!((twcc.base_seq, usize::from(twcc.status_count)), (packets[0].0, packets.len()));
    assert_eq!(twcc.feedback_count, number);
    let received = packets.iter().filter(|packet| packet.1.is_some()).count();
    assert_eq!(twcc.delta.len(), received);
}
