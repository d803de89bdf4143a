use super::*;

const VP8_1: &str = include_str!("../../core/tests/data/subscriber-offer-vp8-1.sdp");
const VP8_2: &str = include_str!("../../core/tests/data/subscriber-offer-vp8-2.sdp");
const H264_2: &str = include_str!("../../core/tests/data/subscriber-offer-h264-2.sdp");

fn parse(text: &str) -> Description<'_> {
    Description::parse(text).unwrap()
}

/// A description with one audio m-line and these further lines.
fn audio(lines: &str) -> String {
    format!("v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n{lines}")
}

#[test]
fn what_a_captured_offer_says() {
    let offer = parse(VP8_2);
    let kinds: Vec<_> = offer.media.iter().map(|media| (media.media_type, media.mid)).collect();
    let expected =
        [(MediaType::Application, "0"), (MediaType::Audio, "1"), (MediaType::Video, "2")];
    assert_eq!(kinds, expected);
    assert_eq!(offer.bundled, ["0", "1", "2"]);
    let [application, audio, video] = &offer.media[..] else { panic!("{:?}", offer.media) };
    assert_eq!(
        (application.sctp_port, application.first_format),
        (Some("5000"), "webrtc-datachannel")
    );
    assert!(application.payload_types.is_empty());
    assert_eq!(audio.track_id, Some("TR_AMPvZVst3PnizD"));
    assert_eq!(audio.ssrcs, [StreamSsrc { ssrc: 3_151_829_842, rtx: None }]);
    assert_eq!(video.ssrcs, [StreamSsrc { ssrc: 1_432_898_797, rtx: Some(1_000_472_489) }]);
    assert_eq!(video.direction, Direction::SendRecv);
    let vp8 = &video.payload_types[0];
    let rtpmap = RtpMap { value: "VP8/90000", encoding: "VP8", clock_rate: 90_000 };
    assert_eq!((vp8.number, vp8.rtpmap), (96, Some(rtpmap)));
    assert!(vp8.is("vp8") && vp8.feedback.contains(&"nack pli"));
    let rtx = video.payload_types.iter().find(|payload_type| payload_type.number == 97).unwrap();
    assert_eq!((rtx.is("rtx"), rtx.parameter("apt")), (true, Some("96")));
    let transport = offer.transport();
    assert_eq!(transport.ice_ufrag, Some("NzzjEwczVgHHTsuJ"));
    assert!(transport.fingerprint.is_some() && transport.setup == Some("actpass"));
    let usable = offer.candidates().filter(|candidate| candidate.is_udp() && !candidate.is_rtcp());
    assert_eq!((offer.candidates().count(), usable.count()), (4, 1));
}

#[test]
fn a_direction_of_its_own_goes_before_the_sessions() {
    let direction = |text: &str| parse(text).media[0].direction;
    assert_eq!(direction(&audio("")), Direction::SendRecv);
    assert_eq!(direction(&audio("a=inactive\r\n")), Direction::Inactive);
    let of_session = audio("").replace("v=0\r\n", "v=0\r\na=recvonly\r\n");
    assert_eq!(direction(&of_session), Direction::RecvOnly);
    assert_eq!(direction(&format!("{of_session}a=sendonly\r\n")), Direction::SendOnly);
    assert!(!Direction::RecvOnly.sends() && Direction::SendRecv.sends());
}

#[test]
fn retransmissions_are_paired_wherever_the_group_stands() {
    let before = audio("a=ssrc-group:FID 1 2\r\na=ssrc:1 a\r\na=ssrc:1 b\r\na=ssrc:2 a\r\n");
    let behind =
        audio("a=ssrc:1 a\r\na=ssrc:2 a\r\na=ssrc-group:FID 1 2\r\na=ssrc-group:SIM 1 3\r\n");
    for text in [before, behind] {
        assert_eq!(parse(&text).media[0].ssrcs, [StreamSsrc { ssrc: 1, rtx: Some(2) }]);
    }
}

#[test]
fn extensions_are_read_with_a_direction_and_attributes() {
    let text = audio("a=extmap:4 urn:a\r\na=extmap:5/recvonly urn:b x y\r\na=extmap:no urn:c\r\n");
    let read: Vec<_> = parse(&text).media[0].extensions.iter().map(|e| (e.id, e.uri)).collect();
    assert_eq!(read, [(4, "urn:a"), (5, "urn:b")]);
}

#[test]
fn candidates_of_any_kind_are_read() {
    let of = |rest: &str| format!("candidate:1 1 {rest} typ host");
    let address = |line: &str| Candidate::parse(line).unwrap().socket_address();
    assert_eq!(address(&of("UDP 5 10.0.0.1 7882")), Some("10.0.0.1:7882".parse().unwrap()));
    assert_eq!(address(&of("udp 5 fe80::1 7882")), Some("[fe80::1]:7882".parse().unwrap()));
    assert_eq!(address(&of("udp 5 a.local 7882")), None);
    let line = format!("a={}", of("TCP 5 10.0.0.1 7881"));
    let tcp = Candidate::parse(&line).unwrap();
    assert!(tcp.is_tcp() && !tcp.is_udp() && !tcp.is_rtcp());
    assert!(Candidate::parse("candidate:1 2 udp 5 10.0.0.1 7 typ host").unwrap().is_rtcp());
    for none in ["", "candidate:", "candidate:1 1 udp 5 10.0.0.1", "1 1 udp 5 10.0.0.1 7 typ host"]
    {
        assert_eq!(Candidate::parse(none), None, "{none:?}");
    }
    let text = audio("a=candidate:1 1 udp 5 10.0.0.1 7 typ host\r\na=candidate:rubbish\r\n");
    assert_eq!(parse(&text).candidates().count(), 1);
}

#[test]
fn a_line_out_of_use_is_told_from_one_that_is_only_bundled() {
    let text = audio("").replace("audio 9", "audio 0");
    let rejected = parse(&text);
    assert!(rejected.is_rejected(&rejected.media[0]));
    let text = text.replace("v=0\r\n", "v=0\r\na=group:LS 0\r\na=group:BUNDLE 1 0\r\n");
    let bundled = parse(&text);
    assert!(!bundled.is_rejected(&bundled.media[0]));
}

#[test]
fn rewriting_keeps_what_is_not_known() {
    for offer in [VP8_1, VP8_2, H264_2] {
        assert_eq!(parse(offer).rewrite(|_, line| Some(Cow::Borrowed(line))), offer);
    }
    let text = "v=0\r\na=x\r\nm=audio 9 X 0\na=mid:1\n\na=sendrecv\nm=video 9 X 1\na=mid:2\n\
                a=candidate:1 1 udp 5 10.0.0.1 7 typ host\na=sendrecv\na=end";
    let rewritten = parse(text).rewrite(|media, line| match line {
        "a=sendrecv" if media.is_some_and(|media| media.mid == "2") => Some("a=sendonly".into()),
        line if line.starts_with("a=candidate:") => None,
        line => Some(line.into()),
    });
    let expected = "v=0\r\na=x\r\nm=audio 9 X 0\r\na=mid:1\r\na=sendrecv\r\nm=video 9 X 1\r\n\
                    a=mid:2\r\na=sendonly\r\na=end\r\n";
    assert_eq!(rewritten, expected);
}

#[test]
fn what_is_no_description_is_told() {
    for (text, reason) in [
        ("", "it does not begin with v=0"),
        ("v=0\r\n", "it has no m-line"),
        ("v=0\r\nrubbish\r\n", "\"rubbish\" is no line of SDP"),
        ("v=0\r\nm=audio 9\r\n", "\"m=audio 9\" is cut short"),
        ("v=0\r\nm=audio 9 X 0\r\n", "m-line 0 has no mid of its own"),
        (
            "v=0\r\nm=audio 9 X 0\r\na=mid:1\r\nm=audio 9 X 0\r\na=mid:1",
            "m-line 1 has no mid of its own",
        ),
    ] {
        assert_eq!(Description::parse(text).unwrap_err().to_string(), reason);
    }
}

#[test]
fn sizes_are_bounded() {
    let many = |count: usize, line: &dyn Fn(usize) -> String| {
        (0..count).map(|index| format!("{}\r\n", line(index))).collect::<String>()
    };
    let error = |text: &str| Description::parse(text).unwrap_err();
    let ssrcs = |count| audio(&many(count, &|index| format!("a=ssrc:{index} cname:x")));
    assert_eq!(parse(&ssrcs(SSRCS_MAX)).media[0].ssrcs.len(), SSRCS_MAX);
    let what = "SSRCs on an m-line";
    assert_eq!(error(&ssrcs(SSRCS_MAX + 1)), ParseError::TooMany { what, max: SSRCS_MAX });
    let media = |count| {
        format!("v=0\r\n{}", many(count, &|index| format!("m=audio 9 X 0\r\na=mid:{index}")))
    };
    assert_eq!(parse(&media(MEDIA_MAX)).media.len(), MEDIA_MAX);
    assert_eq!(
        error(&media(MEDIA_MAX + 1)),
        ParseError::TooMany { what: "m-lines", max: MEDIA_MAX }
    );
    for text in [
        audio("").replace("111", &"111 ".repeat(PAYLOAD_TYPES_MAX + 1)),
        audio(&many(EXTENSIONS_MAX + 1, &|_| "a=extmap:1 urn:x".to_owned())),
        audio(&many(SSRCS_MAX + 1, &|index| format!("a=ssrc-group:FID {index} 9"))),
    ] {
        assert!(matches!(error(&text), ParseError::TooMany { .. }));
    }
    let bytes = DESCRIPTION_BYTES_MAX + 1;
    assert_eq!(error(&"x".repeat(bytes)), ParseError::TooLong { bytes });
    let ParseError::Line { line } = error(&format!("v=0\r\n{}", "x".repeat(1_000))) else {
        panic!("it was read");
    };
    assert_eq!(line.len(), EXCERPT_CHARS_MAX);
}
