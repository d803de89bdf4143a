//! Media reaches a subscriber under every SRTP profile that DTLS can agree on.

use std::fmt;
use std::time::SystemTime;

use stampede_core::crypto::take_key_slot;
use stampede_core::srtp::Keying;
use str0m::config::DtlsCert;
use str0m::crypto::CryptoError;
use str0m::crypto::dtls::{
    DtlsImplError, DtlsInstance, DtlsOutput, DtlsProvider, DtlsVersion, KeyingMaterial,
    ProtocolVersion, SrtpProfile,
};

use str0m::channel::ChannelConfig;

use super::*;
use crate::media::message::RELIABLE_CHANNEL;
use crate::media::peer::PEER_CHANNELS_MAX;

/// DTLS that has agreed on this profile, whichever it really was: both sides take what they need
/// of the exported keys.
struct Agreeing {
    profile: SrtpProfile,
}

static CM_SHA1: Agreeing = Agreeing { profile: SrtpProfile::AES128_CM_SHA1_80 };
static GCM_128: Agreeing = Agreeing { profile: SrtpProfile::AEAD_AES_128_GCM };
static GCM_256: Agreeing = Agreeing { profile: SrtpProfile::AEAD_AES_256_GCM };

impl fmt::Debug for Agreeing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Agreeing({})", self.profile)
    }
}

fn own() -> CryptoProvider {
    str0m::crypto::from_feature_flags()
}

impl DtlsProvider for Agreeing {
    fn generate_certificate(&self) -> Option<DtlsCert> {
        own().dtls_provider.generate_certificate()
    }

    fn new_dtls(
        &self,
        cert: &DtlsCert,
        now: Instant,
        version: DtlsVersion,
        mtu: Option<usize>,
    ) -> Result<Box<dyn DtlsInstance>, CryptoError> {
        let dtls = own().dtls_provider.new_dtls(cert, now, version, mtu)?;
        Ok(Box::new(AgreeingInstance { dtls, profile: self.profile, keys: take_key_slot() }))
    }
}

#[derive(Debug)]
struct AgreeingInstance {
    dtls: Box<dyn DtlsInstance>,
    profile: SrtpProfile,
    keys: Option<KeySlot>,
}

impl DtlsInstance for AgreeingInstance {
    fn set_active(&mut self, active: bool) {
        self.dtls.set_active(active);
    }

    fn handle_packet(&mut self, packet: &[u8]) -> Result<(), DtlsImplError> {
        self.dtls.handle_packet(packet)
    }

    fn poll_output<'a>(&mut self, buf: &'a mut [u8]) -> DtlsOutput<'a> {
        let active = self.dtls.is_active();
        let output = self.dtls.poll_output(buf);
        let DtlsOutput::KeyingMaterial(material, _) = &output else { return output };
        let material = material[..self.profile.keying_material_len()].to_vec();
        let keying = Keying::new(self.profile, material.clone(), active);
        if let Some(slot) = &self.keys {
            assert!(slot.set(keying).is_ok());
        }
        DtlsOutput::KeyingMaterial(KeyingMaterial::new(&material), self.profile)
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsImplError> {
        self.dtls.handle_timeout(now)
    }

    fn send_application_data(&mut self, data: &[u8]) -> Result<usize, DtlsImplError> {
        self.dtls.send_application_data(data)
    }

    fn is_active(&self) -> bool {
        self.dtls.is_active()
    }

    fn protocol_version(&self) -> Option<ProtocolVersion> {
        self.dtls.protocol_version()
    }

    fn is_closing(&self) -> bool {
        self.dtls.is_closing()
    }

    fn is_closed(&self) -> bool {
        self.dtls.is_closed()
    }

    fn close(&mut self) -> Result<(), DtlsImplError> {
        self.dtls.close()
    }
}

/// VP8 with a descriptor of a byte: a keyframe's first packet, or the rest of one.
fn payload(first: bool, bytes: usize) -> Arc<[u8]> {
    let mut payload = vec![0; bytes];
    payload[0] = if first { 0x10 } else { 0 };
    payload.into()
}

const PAYLOAD_BYTES: usize = 500;

const FRAME: Duration = Duration::from_millis(40);
/// More than the 3 s between two sender reports.
const FRAMES: u32 = 100;
const LOSSES: u64 = 3;

/// A viewer gets all packets, some only when it asked for them again, and is told how many.
fn packets_repairs_and_reports(dtls: &'static Agreeing) {
    let crypto = CryptoProvider { dtls_provider: dtls, ..provider() };
    let mut room = FanOut::with_crypto(1, crypto);
    for frame in 1..=FRAMES {
        if frame == FRAMES / 2 {
            room.clients[0].losses = LOSSES;
        }
        room.publish(&[true, false].map(|first| payload(first, PAYLOAD_BYTES)), frame, FRAME);
        assert!(room.forward());
        room.exchange();
    }
    for _ in 0..ROUNDS_MAX {
        if room.clients[0].packets == room.packets {
            break;
        }
        room.pass(ROUND);
        room.exchange();
    }
    room.hear();
    let row = &room.rows()[0];
    assert!(row.counts.retransmitted >= LOSSES, "{dtls:?}: {row:?}");
    assert!(!room.clients[0].reports.is_empty(), "{dtls:?}");
    room.check();
}

#[test]
fn sender_reports_say_what_was_sent_and_when() {
    let mut room = FanOut::new(2);
    let mut arrivals = Vec::new();
    for frame in 1..=FRAMES {
        room.publish(&[true, false].map(|first| payload(first, PAYLOAD_BYTES)), frame, FRAME);
        assert!(room.forward());
        arrivals.push(room.now);
        room.exchange();
    }
    let (instant, wall) = (Instant::now(), SystemTime::now());
    for client in &mut room.clients {
        // After a second and then every three, of which four have passed.
        assert_eq!(client.reports.len(), 2, "{:?}", client.reports);
        for report in &client.reports {
            let info = &report.sender_info;
            // Frames arrive, and it is looked who is to be told, at the same moments.
            let frames = arrivals.iter().filter(|at| **at <= report.received_at).count() as u32;
            assert_eq!(arrivals[frames as usize - 1], report.received_at);
            assert_eq!(info.sender_packet_count, 2 * frames);
            assert_eq!(info.sender_octet_count, 2 * frames * PAYLOAD_BYTES as u32);
            assert_eq!(info.rtp_time.numer(), u64::from(3_333 * frames));
            let expected = wall + report.received_at.saturating_duration_since(instant)
                - instant.saturating_duration_since(report.received_at);
            let error = info.ntp_time.duration_since(expected);
            let error = error.unwrap_or_else(|error| error.duration());
            assert!(error < Duration::from_millis(20), "{error:?}");
        }
        let [first, second] = &client.reports[..] else { panic!("{:?}", client.reports) };
        let apart = second.received_at - first.received_at;
        assert!((Duration::from_secs(3)..Duration::from_millis(3_100)).contains(&apart));
        // Whatever the wall clock was set to in between.
        let [first, second] = [first, second].map(|report| report.sender_info.ntp_time);
        let told = second.duration_since(first).unwrap();
        assert!(told.abs_diff(apart) < Duration::from_nanos(100), "{told:?} {apart:?}");
        let (ssrc, offer) = (client.ssrc, &client.offer);
        let mut api = client.rtc.direct_api();
        let cname = api.stream_rx(&ssrc).unwrap().cname().unwrap();
        assert!(offer.contains(&format!("a=ssrc:{ssrc} cname:{cname}")), "{cname}: {offer}");
    }
}

#[test]
fn a_stream_that_begins_later_is_reported_within_a_second_and_goes_on_in_another_codec() {
    let mut room = FanOut::new(1);
    // The first report of a peer is a second after it has connected, when nothing was sent yet.
    for _ in 0..300 {
        room.pass(ROUND);
        room.exchange();
    }
    assert!(room.clients[0].reports.is_empty());
    let began = room.now;
    let mut frame = 0;
    let mut play = |room: &mut FanOut, track: TrackKey, until: Duration| {
        while room.now - began < until {
            frame += 1;
            room.publish(&[true, false].map(|it| payload(it, PAYLOAD_BYTES)), frame, FRAME);
            room.coming.back_mut().unwrap().track = track;
            assert!(room.forward());
            room.exchange();
        }
    };
    play(&mut room, TRACK, Duration::from_millis(1_200));
    let [first] = &room.clients[0].reports[..] else { panic!("{:?}", room.clients[0].reports) };
    let first = first.sender_info;
    assert_eq!(first.ssrc, room.clients[0].ssrc);

    let to = TrackKey(TRACK.0 + 1);
    let switch = Command::Switch { peer: PeerKey(0), from: TRACK, to };
    worker_carries_out(&mut room.worker, switch);
    play(&mut room, to, Duration::from_millis(4_500));
    let [_, second] = &room.clients[0].reports[..] else { panic!("{:?}", room.clients[0].reports) };
    let second = second.sender_info;
    assert_eq!(second.ssrc, first.ssrc, "the same stream");
    // Two packets a frame, 25 frames a second; one frame is under way when a report is made.
    let apart = second.sender_packet_count - first.sender_packet_count;
    assert!((148..=152).contains(&apart), "{first:?} {second:?}");
    let ticks = second.rtp_time.numer() - first.rtp_time.numer();
    // 75 frames of 3,333 each, and at the change one by the clock.
    assert!((249_000..251_000).contains(&ticks), "{first:?} {second:?}");
}

#[test]
fn a_frame_leaves_in_as_few_runs_as_their_bytes_allow() {
    let mut room = FanOut::new(3);
    // Of one length in payload, as our publishers' are, or where they sent the capture time as well,
    // with an extension block eight bytes longer. The last may be shorter. Of 1,000 bytes and headers
    // nine packets are a run.
    for (frame, first, last, packets, runs) in [
        (1, 1_000, 1_000, 7, 1),
        (2, 992, 1_000, 7, 1),
        (3, 1_000, 700, 7, 1),
        (4, 1_000, 1_000, 12, 2),
        (5, 992, 700, 18, 2),
        (6, 1_000, 1_000, 19, 3),
    ] {
        let mut parts = vec![payload(true, first)];
        parts.resize(packets - 1, payload(false, 1_000));
        parts.push(payload(false, last));
        room.publish(&parts, frame, FRAME);
        let before = room.wire.borrow().runs;
        assert!(room.forward());
        assert_eq!(room.wire.borrow().runs - before, 3 * runs, "frame {frame}");
    }
    room.hear();
    room.check();
}

#[test]
fn a_packet_that_is_asked_for_again_and_again_is_sent_three_times_and_not_at_once() {
    let mut room = FanOut::new(1);
    // The worker's clocks were read once it was made, which took a while.
    room.pass(Duration::from_secs(5));
    room.publish(&[payload(true, PAYLOAD_BYTES)], 1, FRAME);
    assert!(room.forward());
    room.exchange();
    let (ssrc, address) = (room.clients[0].ssrc, room.clients[0].address);
    let sequence = room.clients[0].last_sequence;
    let mut sealer = room.clients[0].keys.get().unwrap().srtcp_sealer().unwrap();
    let mut ask = |room: &mut FanOut, reports: &[u8]| {
        let mut nack = reports.to_vec();
        nack.extend([0x81, 205, 0, 3, 0, 0, 0, 9]);
        nack.extend(ssrc.to_be_bytes());
        nack.extend(sequence.to_be_bytes());
        nack.extend([0, 0]);
        let datagram = sealer.seal(&nack).unwrap();
        worker_takes(&mut room.worker, address, &datagram);
        let counts = room.rows().remove(0).counts;
        (counts.retransmitted, counts.resends_refused)
    };
    let ms = Duration::from_millis;
    // As long as nothing is known of the way to the subscriber: after 100 ms.
    assert_eq!(ask(&mut room, &[]), (1, 0));
    assert_eq!(ask(&mut room, &[]), (1, 1));
    room.pass(ms(100));
    assert_eq!(ask(&mut room, &[]), (1, 2));
    room.pass(ms(1));
    assert_eq!(ask(&mut room, &[]), (2, 2));
    // By a report that says that the SFU's of 10 ms ago came just now: after 20 ms.
    room.pass(ms(15));
    let (began, wall) = (Instant::now(), SystemTime::now());
    let now = wall + room.now.saturating_duration_since(began)
        - began.saturating_duration_since(room.now);
    let sent = now - ms(10);
    let since = sent.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let fraction = u64::from(since.subsec_nanos()) * 65_536 / 1_000_000_000;
    let middle = ((since.as_secs() + 2_208_988_800) << 16) | fraction;
    let mut report = vec![0x81, 201, 0, 7, 0, 0, 0, 9];
    report.extend(ssrc.to_be_bytes());
    report.extend([0; 12]);
    report.extend((middle as u32).to_be_bytes());
    report.extend([0; 4]);
    assert_eq!(ask(&mut room, &report), (2, 3));
    room.pass(ms(15));
    assert_eq!(ask(&mut room, &[]), (3, 3));
    // Three times were enough.
    room.pass(ms(500));
    assert_eq!(ask(&mut room, &[]), (3, 4));
}

/// By how much the worker's clock goes on each time it is looked at, where it does.
const STEP: Duration = Duration::from_millis(1);

impl FanOut {
    /// From here on time passes while the worker works.
    fn let_time_pass(&mut self) {
        TIME.set(Some((self.now, STEP)));
    }

    /// One turn of the worker's. Whether there is still media to forward behind it.
    fn turn(&mut self) -> bool {
        self.worker.begin_turn(look_at_the_clock());
        assert!(!self.worker.turn());
        self.now = look_at_the_clock();
        self.worker.has_media()
    }

    /// Whether the worker has said or sent something for a handshake since it was last heard.
    fn has_gone_on_with_joins(&self, viewers: u16) -> bool {
        let joining = self.clients[usize::from(viewers)..].iter().filter(|it| !it.connected);
        let joining: Vec<SocketAddr> = joining.map(|client| client.address).collect();
        let kept = &self.wire.borrow().kept;
        let mut handshakes = kept.iter().filter(|(_, bytes)| Class::of(bytes) == Class::Other);
        !self.events.is_empty() || handshakes.any(|(to, _)| joining.contains(to))
    }

    /// Lets clients have what the worker has sent, and it what they answer; and who was offered
    /// something answers. How many of them are connected since the last call.
    fn hand_over(&mut self) -> usize {
        let now = self.now;
        let mut connected = 0;
        while let Ok(event) = self.events.try_recv() {
            match event {
                Event::Offer { id, sdp, .. } => {
                    let answer = self.answer(self.clients.len() as u16, id, sdp);
                    self.handle.command(answer);
                }
                Event::Connected { .. } => connected += 1,
                _ => {}
            }
        }
        let kept = std::mem::take(&mut self.wire.borrow_mut().kept);
        for (to, bytes) in kept {
            let client = self.clients.iter_mut().find(|client| client.address == to).unwrap();
            let receive = Receive::new(Protocol::Udp, self.address, to, &bytes).unwrap();
            client.rtc.handle_input(Input::Receive(now, receive)).unwrap();
            for datagram in client.poll() {
                self.worker.take_datagram(client.address, &datagram);
            }
        }
        for client in &mut self.clients {
            client.rtc.handle_input(Input::Timeout(now)).unwrap();
            for datagram in client.poll() {
                self.worker.take_datagram(client.address, &datagram);
            }
        }
        connected
    }

    /// A frame of the publisher's comes now.
    fn frame_comes(&mut self, frame: u32) {
        self.publish(&[true, false].map(|first| payload(first, PAYLOAD_BYTES)), frame, FRAME);
        assert!(self.handle.try_media(self.coming.pop_front().unwrap()));
    }

    /// Viewers that have had a first frame, and so many who are about to join. From here on time passes.
    fn with_joiners(viewers: u16, joiners: u16) -> Self {
        let mut room = Self::new(viewers);
        room.frame_comes(1);
        while room.worker.forward() {}
        room.hand_over();
        (viewers..viewers + joiners).for_each(|index| room.handle.command(adding(index)));
        room.let_time_pass();
        room
    }
}

#[test]
fn the_ledger_has_what_a_worker_that_is_too_slow_does_not_forward() {
    let mut room = FanOut::new(2);
    room.publish(&vec![payload(true, PAYLOAD_BYTES); 1_030], 1, FRAME);
    assert!(room.forward());
    let answer = room.handle.ask();
    assert!(!room.worker.turn());
    let counted = answer.try_recv().unwrap().worker.counted;
    assert_eq!((counted.backlog_full, counted.lost_inside()), (12, 12));
    room.packets = 1_024;
    room.hear();
}

impl FanOut {
    /// What the worker has counted so far.
    fn counted(&mut self) -> stampede_counters::SfuWorkerCounters {
        let answer = self.handle.ask();
        assert!(!self.worker.turn());
        answer.try_recv().unwrap().worker.counted
    }

    /// Time in which data channels open, and what waits in them goes out.
    fn go_on(&mut self) {
        for _ in 0..100 {
            self.exchange();
            self.pass(ROUND);
        }
    }
}

#[test]
fn messages_that_find_no_room_are_counted_and_those_that_were_promised_apart() {
    let mut room = FanOut::new(1);
    room.go_on();
    let send = |room: &mut FanOut, channel: &str, viewer| {
        let (targets, payload) = ([key(viewer)].into(), vec![0; 10_000].into());
        room.worker.carry_out(Command::Data { targets, channel: channel.into(), payload });
    };
    (0..40).for_each(|_| send(&mut room, RELIABLE_CHANNEL, 0));
    let counted = room.counted();
    let [sent, unsent] = [counted.messages_sent, counted.messages_unsent];
    // str0m keeps 128 KiB, and some is under way.
    assert!((10..=20).contains(&sent), "{sent}");
    assert_eq!((sent + unsent, counted.messages_unsent_reliable), (40, unsent));
    send(&mut room, "_lossy", 0);
    send(&mut room, RELIABLE_CHANNEL, 7);
    let counted = room.counted();
    let counts = (counted.messages_unsent, counted.messages_unsent_reliable);
    assert_eq!(counts, (unsent + 2, unsent + 1));
    // What has left makes room.
    room.go_on();
    send(&mut room, RELIABLE_CHANNEL, 0);
    assert_eq!(room.counted().messages_sent, sent + 1);
}

#[test]
fn messages_over_more_channels_than_a_client_may_open_are_ignored_and_counted() {
    let mut room = FanOut::new(1);
    room.go_on();
    let rtc = &mut room.clients[0].rtc;
    let channels = (0..PEER_CHANNELS_MAX).map(|number| {
        let config = ChannelConfig { label: number.to_string(), ..ChannelConfig::default() };
        rtc.direct_api().create_data_channel(config)
    });
    let channels: Vec<_> = channels.collect();
    room.go_on();
    for id in channels {
        let mut channel = room.clients[0].rtc.channel(id).unwrap();
        assert!(channel.write(true, b"hello").unwrap());
    }
    room.go_on();
    // Those that the SFU has opened are of them.
    let counted = room.counted();
    assert_eq!((counted.messages_received, counted.messages_ignored), (13, 3));
}

/// More viewers than have their turn in one slice of media, by this clock.
const SEVERAL_SLICES: u16 = 100;

#[test]
fn media_that_has_come_goes_to_everybody_before_anything_is_done_for_who_joins() {
    let mut room = FanOut::with_joiners(SEVERAL_SLICES, 3);
    let (mut connected, mut held_back) = (0, 0);
    for frame in 2.. {
        assert!(frame < 1_000, "{connected} are connected");
        // Commands and handshakes wait, and find that a frame has come.
        room.frame_comes(frame);
        while room.turn() {
            assert!(!room.has_gone_on_with_joins(SEVERAL_SLICES), "in frame {frame}");
            held_back += 1;
        }
        connected += room.hand_over();
        if connected == 3 {
            break;
        }
    }
    assert!(held_back > 3, "{held_back}");
    room.turn();
    room.hand_over();
    for client in &room.clients[..usize::from(SEVERAL_SLICES)] {
        assert_eq!(client.packets, room.packets);
    }
}

#[test]
fn many_who_join_at_once_are_no_more_than_a_moment_for_media() {
    let mut room = FanOut::with_joiners(1, 30);
    let mut offers = 0;
    for turn in 1.. {
        let began = room.now;
        assert!(!room.turn());
        // A slice, and looks at the clock around it.
        assert!(room.now - began <= Duration::from_millis(2) + 4 * STEP, "turn {turn}");
        while let Ok(event) = room.events.try_recv() {
            offers += usize::from(matches!(event, Event::Offer { .. }));
        }
        if offers == 30 {
            assert!(turn > 10, "{turn}");
            return;
        }
        assert!(turn < 100, "{offers} of 30");
    }
}

#[test]
fn what_is_not_of_a_join_waits_for_neither_media_nor_joins() {
    let mut room = FanOut::with_joiners(SEVERAL_SLICES, 0);
    let peers = |room: &mut FanOut| {
        room.frame_comes(room.packets as u32);
        let answer = room.handle.ask();
        assert!(room.turn(), "there is media without end");
        answer.try_recv().unwrap().worker.peers
    };
    room.handle.command(Command::RemovePeer(key(0)));
    room.handle.command(adding(SEVERAL_SLICES));
    room.handle.command(Command::RemovePeer(key(1)));
    peers(&mut room);
    let all = usize::from(SEVERAL_SLICES);
    assert_eq!(peers(&mut room), all - 1, "behind a join, for its order's sake");
    room.handle.command(Command::Stop);
    room.worker.begin_turn(look_at_the_clock());
    assert!(room.worker.turn(), "to stop");
}

#[test]
fn what_waits_of_who_is_gone_is_counted() {
    let mut room = FanOut::with_joiners(1, 1);
    while room.events.is_empty() {
        room.turn();
    }
    let unknown = |room: &mut FanOut| {
        let answer = room.handle.ask();
        room.turn();
        answer.try_recv().unwrap().worker.counted.datagrams_unknown
    };
    let before = unknown(&mut room);
    room.handle.command(Command::RemovePeer(key(1)));
    // Its checks come before it is removed.
    room.hand_over();
    room.now += Duration::from_millis(100);
    room.let_time_pass();
    room.hand_over();
    room.turn();
    assert!(unknown(&mut room) > before);
}

/// Whether the first who joined fails, to whom an offer went 15 s ago: its answer is behind others who
/// join, or there is none.
fn fails_behind_others(answers: bool) -> bool {
    let mut room = FanOut::with_joiners(1, 1);
    while room.events.is_empty() {
        room.turn();
    }
    let Ok(Event::Offer { id, sdp, .. }) = room.events.try_recv() else { panic!("no offer") };
    room.now += Duration::from_secs(15);
    room.let_time_pass();
    (2..32).for_each(|index| room.handle.command(adding(index)));
    let answer = room.answer(1, id, sdp);
    if answers {
        room.handle.command(answer);
    }
    // More than two seconds, within which the others don't fail.
    let mut failed = false;
    for _ in 0..700 {
        room.turn();
        while let Ok(event) = room.events.try_recv() {
            failed |= matches!(event, Event::Failed { peer, .. } if peer == key(1));
        }
    }
    failed
}

#[test]
fn nobody_fails_for_an_answer_that_waits_behind_others_who_join() {
    assert!(!fails_behind_others(true));
    assert!(fails_behind_others(false));
}

#[test]
fn who_is_offered_something_later_is_told_the_rest_at_once() {
    let mut room = FanOut::with_joiners(SEVERAL_SLICES, 0);
    let Command::AddPeer { tracks, .. } = adding(0) else { panic!() };
    let track = TrackOffer { track: TrackKey(2), sid: "TR_2".into(), ..tracks[0].clone() };
    room.handle.command(Command::Subscribe { peer: key(0), track });
    room.frame_comes(2);
    room.turn();
    room.now += Duration::from_secs(5);
    room.let_time_pass();
    room.wire.borrow_mut().kept.clear();
    room.frame_comes(3);
    assert!(room.turn());
    let to = room.clients[0].address;
    let report = |(address, bytes): &(SocketAddr, Vec<u8>)| {
        *address == to && Class::of(bytes) == Class::Rtcp
    };
    assert!(room.wire.borrow().kept.iter().any(report));
    assert!(room.events.is_empty());
    for _ in 0..100 {
        room.turn();
    }
    assert!(matches!(room.events.try_recv(), Ok(Event::Offer { peer, .. }) if peer == key(0)));
}

#[test]
fn a_worker_whose_events_find_no_room_leaves_signalling_time_to_make_some() {
    // More offers than the channel holds.
    let mut room = FanOut::with_joiners(1, 70);
    for _ in 0..300 {
        room.turn();
        let sleep = room.worker.sleep();
        if !sleep.is_zero() {
            assert_eq!(room.events.len(), 64);
            assert!(sleep <= Duration::from_millis(1), "{sleep:?}");
            return;
        }
    }
    panic!("it spins");
}

#[test]
fn who_joins_is_not_starved_by_media_without_end() {
    let mut room = FanOut::with_joiners(SEVERAL_SLICES, 3);
    let began = room.now;
    let mut connected = 0;
    for frame in 2.. {
        // Always the next one comes before everybody has had the last one.
        room.frame_comes(frame);
        assert!(room.turn(), "frame {frame} is through");
        connected += room.hand_over();
        if connected == 3 {
            return;
        }
        assert!(room.now - began < Duration::from_secs(5), "{connected} of 3 are connected");
    }
}

#[test]
fn aes_128_cm_hmac_sha1_80() {
    packets_repairs_and_reports(&CM_SHA1);
}

#[test]
fn aead_aes_128_gcm() {
    packets_repairs_and_reports(&GCM_128);
}

#[test]
fn aead_aes_256_gcm() {
    packets_repairs_and_reports(&GCM_256);
}

/// There is no fourth that would need a test, and str0m's DTLS offers these.
#[test]
fn these_are_all_profiles() {
    let tested = [&GCM_256, &GCM_128, &CM_SHA1].map(|dtls| dtls.profile);
    assert_eq!(SrtpProfile::ALL, tested);
}
