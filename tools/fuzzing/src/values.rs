//! What people write on a command line.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use stampede_core::{CongestionFeedback, Transport};
use stampede_impair::Spec;
use stampede_media::ScalabilityMode;
use stampede_report::compare::FailIf;
use stampede_report::out::Output;
use stampede_report::threshold::Thresholds;
use stampede_scenario::values::{self, CoreList};
use stampede_scenario::{
    CodecList, CodecMix, DataKinds, FaultSpec, Grant, Layering, ParticipantTracks, Reconnect,
    RoomSizes, Signal, Stage,
};
use stampede_units::parse;

pub(crate) const WORDS: &[&[u8]] = &[
    b"%",
    b"s",
    b"ms",
    b"MiB",
    b"Mbps",
    b",",
    b":",
    b"=",
    b"@",
    b"<",
    b"&&",
    b"-",
    b"1e308",
    b"0.0000001",
    b"18446744073709551616",
    b"who=publishers",
    b"loss=",
    b"abort",
];

/// What was read says itself in words that are read as the same.
fn same<T: FromStr + Display + PartialEq + Debug>(text: &str) {
    let Ok(read) = text.parse::<T>() else { return };
    let written = read.to_string();
    match written.parse::<T>() {
        Ok(again) => assert_eq!(again, read, "{text:?} is written {written:?}"),
        Err(_) => panic!("{text:?} is written {written:?}, which can't be read"),
    }
}

/// A text as the value of any flag.
pub(crate) fn run(input: &[u8]) {
    let text = &*String::from_utf8_lossy(input);
    for share in [parse::percent(text), parse::share(text)].into_iter().flatten() {
        assert!((0.0..=1.0).contains(&share), "{text:?} is {share}");
    }
    for number in [parse::bytes(text), parse::bits_per_second(text)].into_iter().flatten() {
        assert!(number.is_finite(), "{text:?} is {number}");
    }
    let _ = parse::duration(text);
    let _ = values::duration_above_zero(text).map(|it| assert!(!it.is_zero()));
    let _ = values::mean_duration(text);
    let _ = values::percent_above_zero(text).map(|it| assert!(it > 0.0 && it <= 1.0));
    let _ = values::buffer_bytes(text).map(|it| assert!(it <= 1 << 30));
    let _ = values::message_bytes(text).map(|it| assert!(it <= 64 << 20));
    let _ = values::ring_bytes(text).map(|it| assert!(it <= 1 << 30));
    let _ = values::joins_per_second(text).map(|it| assert!(it > 0.0 && it <= 100_000.0));
    let _ = values::updates_rate(text);
    let _ = values::data_rate(text).map(|it| assert!((0.01..=1_000.0).contains(&it)));
    let _ = values::data_bytes(text);
    let _ = values::rpc_bytes(text);
    let _ = values::rpc_timeout(text);
    let _ = values::rpc_method(text);
    let _ = values::burst(text);
    let _ = values::frame_rate(text).map(|it| assert!(it.is_finite() && it > 0.0));
    let _ = values::metrics_url(text);
    let _ = values::video_codec(text);
    let _ = text.parse::<Thresholds>();
    let _ = text.parse::<FailIf>();
    let _ = text.parse::<Output>();
    let _ = text.parse::<Stage>();
    same::<CongestionFeedback>(text);
    same::<Transport>(text);
    same::<Spec>(text);
    same::<ScalabilityMode>(text);
    same::<CoreList>(text);
    same::<CodecList>(text);
    same::<CodecMix>(text);
    same::<DataKinds>(text);
    same::<FaultSpec>(text);
    same::<Grant>(text);
    same::<Layering>(text);
    same::<ParticipantTracks>(text);
    same::<Reconnect>(text);
    same::<RoomSizes>(text);
    same::<Signal>(text);
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    [
        "90s",
        "1m30s",
        "500ms",
        "1.5s",
        "2h",
        "0",
        "10%",
        "0.5",
        "100%",
        "64kB",
        "1.5MiB",
        "2 KiB",
        "1Mbps",
        "2.5Gbps",
        "300",
        "0,2-5",
        "vp8:70,h265:30",
        "vp8,h264",
        "reliable,track",
        "both",
        "all",
        "L3T3_KEY",
        "L1T3",
        "none",
        "sdk",
        "3",
        "auto",
        "v1",
        "turn-tls",
        "tcp",
        "chrome",
        "echo.method",
        "http://127.0.0.1:6789/metrics",
        "10s:200",
        "json=report.json",
        "video.loss_rate<1% && join.failed==0 abort after 10s",
        "video.fps<-10%",
        "loss=1%,burst=3",
        "delay=50ms,jitter=10ms,reorder=1%,duplicate=0.1%",
        "rate=1Mbps,rate_span=20s@10s",
        "signal_drop,for=5s,at=10s,every=30s,spread=2s,share=10%,who=subscribers",
        "simulate=node_failure,at=5s",
        "network_change,every=10s",
        "outage,for=3s,at=10s",
        "canPublish=false",
        "canPublishSources=camera,microphone",
        "2x10,1x100",
        "zipf:1.1:10-100",
        "5:60%,50:40%",
        "audio",
        "video",
        "1e3",
        "-1",
        "NaN",
        "inf",
        "1e999",
        "0x10",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}
