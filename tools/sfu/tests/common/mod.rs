//! A small LiveKit client on str0m and tungstenite, driven by hand, for the tests.
#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used)]

use std::collections::{BTreeMap, HashMap};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use futures_util::{SinkExt, StreamExt};
use livekit_protocol as proto;
use livekit_token::{AccessToken, VideoGrants};
use prost::Message as _;
use proto::signal_request::Message as Request;
use proto::signal_response::Message as Response;
use stampede_core::crypto::{provider, with_key_slot};
use stampede_core::srtp::{KeySlot, SrtcpSealer};
use stampede_media::dependency_descriptor::URI;
use stampede_sfu::{Sfu, SfuOptions, SubscriberTrackLedger};
use str0m::change::{SdpAnswer, SdpApi, SdpOffer, SdpPendingOffer};
use str0m::channel::ChannelId;
use str0m::format::Codec;
use str0m::media::{Direction, MediaKind, Mid, Rid, Simulcast, SimulcastLayer};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{Extension, ExtensionSerializer, ExtensionValues, RtpPacket, RtpWrite};
use str0m::{Candidate, Event, IceConnectionState, Input, Output, Rtc, RtcConfig, RtcError};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use tracing_subscriber::filter::LevelFilter;

pub const KEY: &str = "testkey";
pub const SECRET: &str = "a-secret-for-tests-of-32-characters";

/// Header extension id of the clients' capture times; str0m's own take 1 to 13.
const CAPTURE_TIME_ID: u8 = 14;
/// The SFU's of transport-wide sequence numbers.
const TRANSPORT_SEQUENCE_ID: u8 = 3;
/// And of their dependency descriptors, which it leaves out.
const DESCRIPTOR_ID: u8 = 12;

pub fn options() -> SfuOptions {
    SfuOptions { api_key: KEY.into(), api_secret: SECRET.into(), ..SfuOptions::default() }
}

/// `impair` is a spec of impairments, or empty.
pub fn start(impair: &str, workers: usize) -> Sfu {
    let level: LevelFilter = std::env::var("RUST_LOG")
        .ok()
        .and_then(|said| said.parse().ok())
        .unwrap_or(LevelFilter::OFF);
    let _ = tracing_subscriber::fmt().with_max_level(level).with_test_writer().try_init();
    let impair = if impair.is_empty() { vec![] } else { vec![impair.parse().unwrap()] };
    Sfu::start(SfuOptions { impair, workers, ..options() }).unwrap()
}

pub fn grants(room: &str) -> VideoGrants {
    VideoGrants { room_join: true, room: room.into(), ..VideoGrants::default() }
}

pub fn token(identity: &str, grants: VideoGrants) -> String {
    AccessToken::with_api_key(KEY, SECRET)
        .with_identity(identity)
        .with_grants(grants)
        .to_jwt()
        .unwrap()
}

/// A client knows that it is connected before the SFU does, which puts the media of others first; so long
/// afterwards it does, too.
const KNOWN_AFTER: Duration = Duration::from_millis(50);

/// One peer connection of the client.
pub struct Connection {
    pub rtc: Rtc,
    /// Will hold the keys of its SRTP.
    pub keys: KeySlot,
    pub socket: UdpSocket,
    address: SocketAddr,
    /// Where the last datagram came from.
    pub remote: Option<SocketAddr>,
    /// Checks leave from this socket instead, which is another's.
    pub checks_from: Option<UdpSocket>,
    /// Those that did.
    pub diverted: u64,
    remote_ufrag: Option<String>,
    timeout: Instant,
    connected_at: Option<Instant>,
    /// Connected, and the SFU knows.
    pub connected: bool,
    /// Nothing leaves.
    pub muted: bool,
    /// RTP and RTCP that arrive are counted and thrown away.
    pub sink: bool,
    /// Which RTP packets get lost on arrival, by SSRC and sequence number.
    pub lose: Option<Box<dyn FnMut(u32, u16) -> bool>>,
    /// RTP packets with a transport-wide sequence number, as they came.
    pub numbered: Vec<Numbered>,
    pub sunk: u64,
    pub datagrams: u64,
    pub sent: u64,
    pub ice: Option<IceConnectionState>,
}

/// The dependency descriptor of a packet that is written, among its extensions' user values.
#[derive(Debug)]
pub struct DescriptorValue(pub Vec<u8>);

#[derive(Debug)]
struct DescriptorWriter;

impl ExtensionSerializer for DescriptorWriter {
    fn write_to(&self, out: &mut [u8], values: &ExtensionValues) -> usize {
        let value = values.user_values.get::<DescriptorValue>().unwrap();
        out[..value.0.len()].copy_from_slice(&value.0);
        value.0.len()
    }

    fn parse_value(&self, _: &[u8], _: &mut ExtensionValues) -> bool {
        false
    }

    fn is_video(&self) -> bool {
        true
    }

    fn is_audio(&self) -> bool {
        false
    }

    fn requires_two_byte_form(&self, _: &ExtensionValues) -> bool {
        true
    }
}

/// A packet as it came out of str0m.
#[derive(Debug, Clone)]
pub struct Packet {
    pub seq: u64,
    pub timestamp: u32,
    pub marker: bool,
    /// The sender report before it.
    pub report: Option<Report>,
    pub extensions: ExtensionValues,
    pub received_at: SystemTime,
    pub payload: Arc<[u8]>,
}

/// A sender report.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Report {
    pub packets: u32,
    pub octets: u32,
    pub rtp_time: u32,
    pub ntp_time: SystemTime,
}

/// What was seen on the wire of one SSRC, before str0m.
#[derive(Debug, Default, Clone)]
pub struct Wire {
    pub seqs: Vec<u16>,
}

/// A packet on the wire with a transport-wide sequence number.
#[derive(Debug, Clone, Copy)]
pub struct Numbered {
    pub ssrc: u32,
    pub number: u16,
    /// Its payload ends in padding.
    pub padded: bool,
}

pub struct Client {
    ws: WebSocketStream<MaybeTlsStream<TcpStream>>,
    pub join: Option<proto::JoinResponse>,
    pub left: Option<proto::LeaveRequest>,
    pub closed: bool,
    pub responses: Vec<Response>,
    pub subscriber: Connection,
    pub publisher: Connection,
    pending: Option<SdpPendingOffer>,
    pub mid_to_track: HashMap<String, String>,
    /// SSRC to track sid, from the offers' msid lines.
    pub ssrc_track: HashMap<u32, (String, bool)>,
    pub wire: BTreeMap<u32, Wire>,
    pub packets: HashMap<String, Vec<Packet>>,
    /// SSRCs of sender reports, in their order.
    pub reported: Vec<u32>,
    pub keyframe_requests: Vec<Option<String>>,
    /// m-lines of what it publishes.
    pub mids: Vec<Mid>,
    pub offers: u32,
    /// It has come back, so that an offer may come again.
    resumed: bool,
    pub codec: Codec,
    /// It has joined by v1, so that `publisher` is its only connection.
    pub single: bool,
    /// M-lines to receive by that it was asked to add to those it has: audio and video.
    pub required: Vec<(u32, u32)>,
    /// Those m-lines.
    slots: Vec<Mid>,
    /// What of it waits for the answer to an offer.
    wanted: Option<(u32, u32)>,
    /// Id of its last offer.
    offer_id: u32,
    /// To its offers.
    pub answers: Vec<proto::SessionDescription>,
    /// Data channels of the publisher connection by label.
    pub channels: HashMap<String, ChannelId>,
    pub data: Vec<Vec<u8>>,
}

impl Connection {
    fn new() -> Self {
        Self::build(Rtc::builder())
    }

    /// Whose packets can have dependency descriptors: see [`DescriptorValue`].
    pub fn describing() -> Self {
        let descriptor = Extension::with_serializer(URI, DescriptorWriter);
        Self::build(Rtc::builder().set_extension(DESCRIPTOR_ID, descriptor))
    }

    fn build(config: RtcConfig) -> Self {
        Self::build_on(UdpSocket::bind("127.0.0.1:0").unwrap(), config)
    }

    /// Which lives there.
    pub fn on(socket: UdpSocket) -> Self {
        Self::build_on(socket, Rtc::builder())
    }

    fn build_on(socket: UdpSocket, config: RtcConfig) -> Self {
        socket.set_nonblocking(true).unwrap();
        let address = socket.local_addr().unwrap();
        let now = Instant::now();
        let config = config
            .set_crypto_provider(Arc::new(provider()))
            .set_rtp_mode(true)
            .set_extension(CAPTURE_TIME_ID, Extension::AbsoluteCaptureTime);
        let (mut rtc, keys) = with_key_slot(|| config.build(now));
        rtc.add_local_candidate(Candidate::host(address, "udp").unwrap());
        Self {
            rtc,
            keys,
            socket,
            address,
            remote: None,
            checks_from: None,
            diverted: 0,
            remote_ufrag: None,
            timeout: now,
            connected: false,
            connected_at: None,
            muted: false,
            sink: false,
            lose: None,
            numbered: Vec::new(),
            sunk: 0,
            datagrams: 0,
            sent: 0,
            ice: None,
        }
    }

    /// Sends a datagram from where it lives, past str0m.
    pub fn forge(&self, datagram: &[u8]) {
        self.socket.send_to(datagram, self.remote.unwrap()).unwrap();
    }

    /// What the other end of its connection calls itself in checks, once that was said.
    pub fn remote_ufrag(&self) -> Option<String> {
        self.remote_ufrag.clone()
    }

    /// The same of RTCP, encrypted as its own. Numbers of packets begin anew for each sealer.
    pub fn forge_rtcp(&self, sealer: &mut SrtcpSealer, compound: &[u8]) {
        self.forge(&sealer.seal(compound).unwrap());
    }

    /// What its RTCP is encrypted with.
    pub fn sealer(&self) -> SrtcpSealer {
        self.keys.get().unwrap().srtcp_sealer().unwrap()
    }

    /// Goes on from another port, without knowing it, as behind a NAT that forgot the old one.
    pub fn change_port(&mut self) {
        self.socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        self.socket.set_nonblocking(true).unwrap();
    }

    /// Reads what came and runs str0m; its events and the wire's RTP headers go to the caller.
    fn poll(&mut self, wire: &mut BTreeMap<u32, Wire>, events: &mut Vec<Event>) {
        let mut buffer = [0u8; 2_000];
        let now = Instant::now();
        while let Ok((len, source)) = self.socket.recv_from(&mut buffer) {
            let data = &buffer[..len];
            self.datagrams += 1;
            self.remote = Some(source);
            if self.sink && (128..192).contains(&data[0]) {
                self.sunk += 1;
                continue;
            }
            if len > 12 && (128..192).contains(&data[0]) && !(192..224).contains(&data[1]) {
                let ssrc = u32::from_be_bytes(data[8..12].try_into().unwrap());
                let seq = u16::from_be_bytes(data[2..4].try_into().unwrap());
                wire.entry(ssrc).or_default().seqs.push(seq);
                self.numbered.extend(numbered(ssrc, data));
                if self.lose.as_mut().is_some_and(|lose| lose(ssrc, seq)) {
                    continue;
                }
            }
            // One that is broken on purpose is nobody's.
            let receive = Receive::new(Protocol::Udp, source, self.address, data);
            let Ok(receive) = receive else { continue };
            self.input(Input::Receive(now, receive));
            self.drain(events);
        }
        if self.timeout <= now {
            self.input(Input::Timeout(now));
        }
        self.drain(events);
        self.connected |= self.connected_at.is_some_and(|at| at + KNOWN_AFTER <= now);
    }

    /// Who is told goodbye before its data channels stand can't close them: str0m says so, and is
    /// otherwise as usable as before.
    fn input(&mut self, input: Input<'_>) {
        match self.rtc.handle_input(input) {
            Ok(()) | Err(RtcError::Sctp(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }

    /// Throws away the media that a sink has received and nothing else; how much it was so far.
    /// What is not media waits in the socket for the next `poll`, and media behind it.
    pub fn drain_sink(&mut self) -> u64 {
        let mut buffer = [0u8; 2_000];
        while let Ok(len) = self.socket.peek(&mut buffer)
            && len > 12
            && (128..192).contains(&buffer[0])
            && self.socket.recv(&mut buffer).is_ok()
        {
            self.sunk += 1;
        }
        self.sunk
    }

    fn drain(&mut self, events: &mut Vec<Event>) {
        let mut refused = false;
        loop {
            let output = match self.rtc.poll_output() {
                // Who is told goodbye before its data channels stand. Asked again, str0m goes on
                // behind what it could not do.
                Err(RtcError::Sctp(_)) if !std::mem::replace(&mut refused, true) => continue,
                Err(RtcError::Sctp(_)) => return,
                output => output.unwrap(),
            };
            match output {
                Output::Timeout(at) => {
                    self.timeout = at;
                    return;
                }
                Output::Transmit(_) if self.muted => {}
                Output::Transmit(t) => {
                    self.sent += 1;
                    let other = self.checks_from.as_ref().filter(|_| t.contents[0] < 4);
                    self.diverted += u64::from(other.is_some());
                    let socket = other.unwrap_or(&self.socket);
                    socket.send_to(&t.contents, t.destination).unwrap();
                }
                Output::Event(Event::Connected) => self.connected_at = Some(Instant::now()),
                Output::Event(Event::IceConnectionStateChange(state)) => self.ice = Some(state),
                Output::Event(event) => events.push(event),
            }
        }
    }
}

impl Client {
    pub async fn connect(sfu: &Sfu, identity: &str, grants: VideoGrants) -> Self {
        Self::connect_with(sfu, identity, grants, "auto_subscribe=1").await
    }

    /// Who only watches, from this socket.
    pub async fn connect_on(sfu: &Sfu, identity: &str, room: &str, socket: UdpSocket) -> Self {
        let grants = VideoGrants { can_publish: Some(false), ..grants(room) };
        let mut client = Self::open(sfu, identity, grants, "auto_subscribe=1").await;
        client.subscriber = Connection::on(socket);
        drive(&mut [&mut client], |c| c[0].join.is_some()).await;
        client
    }

    pub async fn connect_with(sfu: &Sfu, identity: &str, grants: VideoGrants, query: &str) -> Self {
        let mut client = Self::open(sfu, identity, grants, query).await;
        drive(&mut [&mut client], |c| c[0].join.is_some() || c[0].left.is_some()).await;
        client
    }

    async fn open(sfu: &Sfu, identity: &str, grants: VideoGrants, query: &str) -> Self {
        let token = token(identity, grants);
        let url = format!("{}/rtc?access_token={token}&protocol=17&sdk=rust&{query}", sfu.url());
        let (ws, _) = tokio_tungstenite::connect_async(url).await.unwrap();
        Self::new(ws)
    }

    /// Joins by v1 with an offer of so many m-lines to receive audio and video by.
    pub async fn connect_single(
        sfu: &Sfu,
        identity: &str,
        grants: VideoGrants,
        slots: (u32, u32),
    ) -> Self {
        Self::connect_single_at(sfu, "/rtc/v1", identity, grants, slots).await
    }

    /// The same by another path.
    pub async fn connect_single_at(
        sfu: &Sfu,
        path: &str,
        identity: &str,
        grants: VideoGrants,
        slots: (u32, u32),
    ) -> Self {
        let mut connection = Connection::new();
        let mut api = connection.rtc.sdp_api();
        for label in ["_reliable", "_lossy", "_data_track"] {
            api.add_channel(label.to_owned());
        }
        let slots = add_slots(&mut api, slots);
        let (offer, pending) = api.apply().unwrap();
        let offer = proto::SessionDescription {
            r#type: "offer".into(),
            sdp: offer.to_sdp_string(),
            id: 1,
            mid_to_track_id: HashMap::new(),
        };
        let request = proto::JoinRequest {
            connection_settings: Some(proto::ConnectionSettings {
                auto_subscribe: true,
                ..proto::ConnectionSettings::default()
            }),
            publisher_offer: Some(offer),
            ..proto::JoinRequest::default()
        };
        let url = url_v1(sfu, path, &token(identity, grants), &request);
        let (ws, _) = tokio_tungstenite::connect_async(url).await.unwrap();
        let mut client = Self::new(ws);
        (client.single, client.offer_id, client.slots) = (true, 1, slots);
        (client.publisher, client.pending) = (connection, Some(pending));
        drive(&mut [&mut client], |c| c[0].join.is_some() || c[0].left.is_some()).await;
        client
    }

    fn new(ws: WebSocketStream<MaybeTlsStream<TcpStream>>) -> Self {
        Self {
            ws,
            join: None,
            left: None,
            closed: false,
            responses: Vec::new(),
            subscriber: Connection::new(),
            publisher: Connection::new(),
            pending: None,
            mid_to_track: HashMap::new(),
            ssrc_track: HashMap::new(),
            wire: BTreeMap::new(),
            packets: HashMap::new(),
            reported: Vec::new(),
            keyframe_requests: Vec::new(),
            mids: Vec::new(),
            offers: 0,
            resumed: false,
            codec: Codec::Vp8,
            single: false,
            required: Vec::new(),
            slots: Vec::new(),
            wanted: None,
            offer_id: 0,
            answers: Vec::new(),
            channels: HashMap::new(),
            data: Vec::new(),
        }
    }

    /// Closes its websocket and goes on with its media.
    pub async fn hang_up(&mut self) {
        // The server may have been first.
        let _ = self.ws.close(None).await;
        self.closed = true;
    }

    /// Comes back with a new websocket, on the peer connections it has, and restarts the ICE of the
    /// publisher's, or the only one, if there is one. What was said before is forgotten.
    pub async fn resume(&mut self, sfu: &Sfu, identity: &str, grants: VideoGrants) {
        self.resume_with(sfu, &token(identity, grants)).await;
        if self.publisher.connected && !self.closed {
            self.restart_publisher().await;
        }
    }

    /// The same with this token, and nothing of the publisher's.
    pub async fn resume_with(&mut self, sfu: &Sfu, token: &str) {
        let query = "protocol=17&sdk=rust&reconnect=1&sid=PA_any";
        let request = proto::JoinRequest {
            reconnect: true,
            participant_sid: "PA_any".into(),
            ..proto::JoinRequest::default()
        };
        let url = match self.single {
            true => url_v1(sfu, "/rtc/v1", token, &request),
            false => format!("{}/rtc?access_token={token}&{query}", sfu.url()),
        };
        (self.ws, _) = tokio_tungstenite::connect_async(url).await.unwrap();
        (self.closed, self.left, self.resumed) = (false, None, true);
        self.responses.clear();
        drive(&mut [self], |c| c[0].closed || !c[0].responses.is_empty()).await;
    }

    /// Offers an ICE restart of the publisher's connection.
    pub async fn restart_publisher(&mut self) {
        let mut api = self.publisher.rtc.sdp_api();
        renew(&mut api, &self.slots);
        api.ice_restart(true);
        let (offer, pending) = api.apply().unwrap();
        self.offer(offer, pending).await;
    }

    async fn offer(&mut self, offer: SdpOffer, pending: SdpPendingOffer) {
        self.pending = Some(pending);
        self.offer_id += 1;
        let offer = proto::SessionDescription {
            r#type: "offer".into(),
            sdp: offer.to_sdp_string(),
            id: self.offer_id,
            mid_to_track_id: HashMap::new(),
        };
        self.send(Request::Offer(offer)).await;
    }

    /// Offers what it was asked for, unless an offer is out.
    async fn offer_wanted(&mut self) {
        if self.pending.is_some() {
            return;
        }
        let Some(wanted) = self.wanted.take() else { return };
        let mut api = self.publisher.rtc.sdp_api();
        // str0m makes no offer without a change.
        renew(&mut api, &self.slots);
        let added = add_slots(&mut api, if wanted == (0, 0) { (1, 0) } else { wanted });
        self.slots.extend(added);
        let (offer, pending) = api.apply().unwrap();
        self.offer(offer, pending).await;
    }

    pub async fn send(&mut self, message: Request) {
        let frame = proto::SignalRequest { message: Some(message) }.encode_to_vec();
        // The server may have closed; tests look at `closed`.
        let _ = self.ws.send(Frame::Binary(frame.into())).await;
    }

    async fn poll(&mut self) {
        while !self.closed {
            match tokio::time::timeout(Duration::ZERO, self.ws.next()).await {
                Ok(Some(Ok(Frame::Binary(frame)))) => {
                    let response = proto::SignalResponse::decode(frame).unwrap();
                    if let Some(message) = response.message {
                        self.respond(message).await;
                    }
                }
                Ok(Some(Ok(Frame::Close(_)) | Err(_)) | None) => self.closed = true,
                Ok(Some(Ok(_))) => {}
                Err(_) => break,
            }
        }
        let mut events = Vec::new();
        self.subscriber.poll(&mut self.wire, &mut events);
        self.publisher.poll(&mut self.wire, &mut events);
        for event in events {
            match event {
                Event::RtpPacket(packet) => self.received(packet),
                Event::SenderFeedback(report) => self.reported.push(*report.sender_info.ssrc),
                Event::ChannelData(data) => self.data.push(data.data),
                Event::KeyframeRequest(request) => {
                    self.keyframe_requests.push(request.rid.map(|rid| rid.to_string()));
                }
                Event::ChannelOpen(id, label) => {
                    self.channels.insert(label, id);
                }
                _ => {}
            }
        }
    }

    fn received(&mut self, packet: RtpPacket) {
        let Some((track, _)) = self.ssrc_track.get(&packet.header.ssrc) else { return };
        self.packets.entry(track.clone()).or_default().push(Packet {
            seq: *packet.seq_no,
            timestamp: packet.header.timestamp,
            marker: packet.header.marker,
            report: packet.last_sender_info.map(|info| Report {
                packets: info.sender_packet_count,
                octets: info.sender_octet_count,
                rtp_time: info.rtp_time.numer() as u32,
                ntp_time: info.ntp_time,
            }),
            extensions: packet.header.ext_vals,
            received_at: SystemTime::now(),
            payload: packet.payload,
        });
    }

    async fn respond(&mut self, message: Response) {
        match message.clone() {
            Response::Join(join) => self.join = Some(join),
            Response::Leave(leave) => self.left = Some(leave),
            Response::Offer(offer) => {
                let again = self.resumed && offer.id == self.offers;
                assert!(again || offer.id == self.offers + 1, "offer ids count up");
                self.offers = offer.id;
                self.mid_to_track = offer.mid_to_track_id;
                self.read_ssrcs(&offer.sdp);
                let mut names = offer.sdp.lines().filter_map(|it| it.strip_prefix("a=ice-ufrag:"));
                self.subscriber.remote_ufrag = names.next().map(str::to_owned);
                let offer_sdp = SdpOffer::from_sdp_string(&offer.sdp).unwrap();
                let answer = self.subscriber.rtc.sdp_api().accept_offer(offer_sdp).unwrap();
                let answer = proto::SessionDescription {
                    r#type: "answer".into(),
                    sdp: answer.to_sdp_string(),
                    id: offer.id,
                    mid_to_track_id: HashMap::new(),
                };
                self.subscriber.timeout = Instant::now();
                self.send(Request::Answer(answer)).await;
            }
            Response::Answer(answer) => {
                assert_eq!(answer.id, self.offer_id, "an answer has its offer's id");
                let pending = self.pending.take().unwrap();
                let sdp = SdpAnswer::from_sdp_string(&answer.sdp).unwrap();
                self.publisher.rtc.sdp_api().accept_answer(pending, sdp).unwrap();
                self.publisher.timeout = Instant::now();
                if self.single {
                    self.mid_to_track.clone_from(&answer.mid_to_track_id);
                    self.read_ssrcs(&answer.sdp);
                }
                self.answers.push(answer);
                self.offer_wanted().await;
            }
            Response::MediaSectionsRequirement(required) => {
                let (audio, video) = (required.num_audios, required.num_videos);
                self.required.push((audio, video));
                let before = self.wanted.unwrap_or_default();
                self.wanted = Some((before.0 + audio, before.1 + video));
                self.offer_wanted().await;
            }
            _ => {}
        }
        self.responses.push(message);
    }

    fn read_ssrcs(&mut self, sdp: &str) {
        let mut fid: Vec<(u32, u32)> = Vec::new();
        let mut track = None;
        let mut ssrcs = Vec::new();
        for line in sdp.lines().chain(["m="]) {
            if line.starts_with("m=") {
                if let Some(track) = track.take() {
                    for ssrc in ssrcs.drain(..) {
                        let rtx = fid.iter().any(|(_, rtx)| *rtx == ssrc);
                        self.ssrc_track.insert(ssrc, (track_name(track), rtx));
                    }
                }
                fid.clear();
                ssrcs.clear();
            } else if let Some(rest) = line.strip_prefix("a=msid:") {
                track = rest.split_whitespace().nth(1);
            } else if let Some(rest) = line.strip_prefix("a=ssrc-group:FID ") {
                let mut words = rest.split_whitespace().map(|word| word.parse().unwrap());
                fid.push((words.next().unwrap(), words.next().unwrap()));
            } else if let Some(rest) = line.strip_prefix("a=ssrc:") {
                let ssrc = rest.split_whitespace().next().unwrap().parse().unwrap();
                if !ssrcs.contains(&ssrc) {
                    ssrcs.push(ssrc);
                }
            }
        }
    }

    /// Announces and offers a track, once no other offer is out; `rids` low to high, empty for one layer.
    pub async fn publish(&mut self, cid: &str, kind: MediaKind, rids: &[&str]) -> Mid {
        drive(&mut [&mut *self], |c| c[0].pending.is_none()).await;
        let layer = |quality: usize| proto::VideoLayer {
            quality: quality as i32,
            width: 320 << quality,
            height: 180 << quality,
            ..proto::VideoLayer::default()
        };
        #[allow(deprecated)]
        let request = proto::AddTrackRequest {
            cid: cid.into(),
            name: cid.into(),
            r#type: if kind == MediaKind::Video { 1 } else { 0 },
            source: if kind == MediaKind::Video { 1 } else { 2 },
            layers: (0..rids.len()).map(layer).collect(),
            ..proto::AddTrackRequest::default()
        };
        self.send(Request::AddTrack(request)).await;
        let simulcast = (!rids.is_empty()).then(|| Simulcast {
            send: rids.iter().map(|rid| SimulcastLayer::new(rid)).collect(),
            recv: Vec::new(),
        });
        let mut api = self.publisher.rtc.sdp_api();
        renew(&mut api, &self.slots);
        let stream = Some("stream".to_owned());
        let mid = api.add_media(kind, Direction::SendOnly, stream, Some(cid.into()), simulcast);
        if !self.single {
            api.add_channel("_reliable".to_owned());
        }
        let (offer, pending) = api.apply().unwrap();
        self.offer(offer, pending).await;
        self.mids.push(mid);
        mid
    }

    /// Writes one packet.
    pub fn write(&mut self, mid: Mid, rid: Option<&str>, seq: u64, time: u32, payload: Vec<u8>) {
        self.write_extended(mid, rid, seq, time, payload, ExtensionValues::default());
    }

    /// Writes one packet with header extensions; a packet without payload is padding.
    pub fn write_extended(
        &mut self,
        mid: Mid,
        rid: Option<&str>,
        seq: u64,
        time: u32,
        payload: Vec<u8>,
        extensions: ExtensionValues,
    ) {
        self.write_marked(mid, rid, seq, time, (payload, true), extensions);
    }

    /// The same with a marker or without.
    pub fn write_marked(
        &mut self,
        mid: Mid,
        rid: Option<&str>,
        seq: u64,
        time: u32,
        (payload, marker): (Vec<u8>, bool),
        extensions: ExtensionValues,
    ) {
        let now = Instant::now();
        let media = self.publisher.rtc.media(mid).unwrap();
        let codec = if media.kind() == MediaKind::Video { self.codec } else { Codec::Opus };
        let accepted = media.remote_pts();
        let config = self.publisher.rtc.codec_config();
        let pt = config.find(|p| p.spec().codec == codec && accepted.contains(&p.pt()));
        let pt = pt.unwrap().pt();
        let mut api = self.publisher.rtc.direct_api();
        let stream = api.stream_tx_by_mid(mid, rid.map(Rid::from)).unwrap();
        stream.write_rtp(
            RtpWrite::new(pt, seq.into(), time, now, payload)
                .marker(marker)
                .nackable(true)
                .ext_vals(extensions),
        );
        self.publisher.timeout = now;
    }

    /// How far it came, for a test that waits in vain.
    fn state(&self) -> String {
        let connection = |c: &Connection| {
            format!("{} in, {} out, {:?}, connected {}", c.datagrams, c.sent, c.ice, c.connected)
        };
        format!(
            "joined {}, closed {}, left {:?}, offers {}; subscriber: {}; publisher: {}",
            self.join.is_some(),
            self.closed,
            self.left,
            self.offers,
            connection(&self.subscriber),
            connection(&self.publisher),
        )
    }

    /// The published track's sid.
    pub fn published(&self, cid: &str) -> Option<String> {
        self.responses.iter().find_map(|response| match response {
            Response::TrackPublished(published) if published.cid == cid => {
                published.track.as_ref().map(|track| track.sid.clone())
            }
            _ => None,
        })
    }

    /// Wire sequence numbers of a track's primary (or RTX) stream.
    pub fn wire_seqs(&self, track: &str, rtx: bool) -> Vec<u16> {
        self.wire
            .iter()
            .filter(|(ssrc, _)| self.ssrc_track.get(ssrc) == Some(&(track.to_owned(), rtx)))
            .flat_map(|(_, wire)| wire.seqs.clone())
            .collect()
    }
}

/// Reads the transport-wide sequence number of an RTP packet, whose header is in clear (RFC 8285 §4.2,
/// §4.3).
fn numbered(ssrc: u32, packet: &[u8]) -> Option<Numbered> {
    let padded = packet[0] & 0x20 != 0;
    let block =
        packet.get(12 + 4 * usize::from(packet[0] & 0xf)..).filter(|_| packet[0] & 0x10 != 0)?;
    let (head, rest) = block.split_first_chunk::<4>()?;
    let one_byte = head[..2] == [0xbe, 0xde];
    let mut rest = rest.get(..4 * usize::from(u16::from_be_bytes([head[2], head[3]])))?;
    while let Some((&first, after)) = rest.split_first() {
        let (id, len, value) = match (first, one_byte) {
            (0, _) => (0, 0, after),
            (_, true) => (first >> 4, usize::from(first & 0xf) + 1, after),
            (_, false) => (first, usize::from(*after.first()?), &after[1..]),
        };
        if id == TRANSPORT_SEQUENCE_ID {
            let number = u16::from_be_bytes(*value.first_chunk()?);
            return Some(Numbered { ssrc, number, padded });
        }
        rest = value.get(len..)?;
    }
    None
}

fn add_slots(api: &mut SdpApi<'_>, (audio, video): (u32, u32)) -> Vec<Mid> {
    let audio = std::iter::repeat_n(MediaKind::Audio, audio as usize);
    let kinds = audio.chain(std::iter::repeat_n(MediaKind::Video, video as usize));
    kinds.map(|kind| api.add_media(kind, Direction::RecvOnly, None, None, None)).collect()
}

/// str0m itself would offer nothing of what was answered `inactive`.
fn renew(api: &mut SdpApi<'_>, slots: &[Mid]) {
    slots.iter().for_each(|slot| api.set_direction(*slot, Direction::RecvOnly));
}

pub fn url_v1(sfu: &Sfu, path: &str, token: &str, request: &proto::JoinRequest) -> String {
    let wrapped = proto::WrappedJoinRequest {
        compression: proto::wrapped_join_request::Compression::None as i32,
        join_request: request.encode_to_vec(),
    };
    let packed = base64::engine::general_purpose::URL_SAFE.encode(wrapped.encode_to_vec());
    format!("{}{path}?access_token={token}&join_request={packed}", sfu.url())
}

fn track_name(track: &str) -> String {
    track.to_owned()
}

/// Who only watches, and is connected and told of this track.
pub async fn subscribe(sfu: &Sfu, room: &str, identity: &str, track: &str) -> Client {
    let grants = VideoGrants { can_publish: Some(false), ..grants(room) };
    let mut client = Client::connect(sfu, identity, grants).await;
    drive(&mut [&mut client], |c| {
        c[0].subscriber.connected && c[0].mid_to_track.values().any(|known| known == track)
    })
    .await;
    client
}

/// Runs the clients until the condition holds; panics after 20 s.
pub async fn drive(clients: &mut [&mut Client], mut until: impl FnMut(&mut [&mut Client]) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        for client in clients.iter_mut() {
            client.poll().await;
        }
        if until(clients) {
            return;
        }
        if Instant::now() >= deadline {
            let states: Vec<String> = clients.iter().map(|client| client.state()).collect();
            panic!("the condition was not met in 20 s: {states:#?}");
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Runs the clients for a while.
pub async fn run_for(clients: &mut [&mut Client], duration: Duration) {
    let end = Instant::now() + duration;
    drive(clients, |_| Instant::now() >= end).await;
}

/// A VP8 payload: descriptor with 15-bit picture id, TL0PICIDX and TID, then a frame whose bytes
/// name the layer.
pub fn vp8(picture_id: u16, keyframe: bool, layer: u8, len: usize) -> Vec<u8> {
    let mut payload = vec![
        0x90,
        0xe0,
        0x80 | (picture_id >> 8) as u8 & 0x7f,
        picture_id as u8,
        picture_id as u8,
        0,
        u8::from(!keyframe),
    ];
    payload.resize(len, layer);
    payload
}

pub fn picture_id(payload: &[u8]) -> u16 {
    u16::from_be_bytes([payload[2] & 0x7f, payload[3]])
}

/// The ledger row of a subscriber's track.
pub fn row(sfu: &Sfu, room: &str, identity: &str, track: &str) -> SubscriberTrackLedger {
    let ledger = sfu.ledger().unwrap();
    let room = ledger.rooms.iter().find(|row| row.room == room).unwrap();
    let subscriber = room.subscribers.iter().find(|row| row.identity == identity).unwrap();
    subscriber.tracks.iter().find(|row| row.track_sid == track).unwrap().clone()
}

/// One HTTP/1.1 exchange: status and body.
pub async fn http(
    sfu: &Sfu,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> (u16, Vec<u8>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let address = sfu.url().replace("ws://", "");
    let mut stream = TcpStream::connect(&address).await.unwrap();
    let mut request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {}\r\n",
        body.len()
    );
    if headers.iter().all(|(name, _)| *name != "Connection") {
        request.push_str("Connection: close\r\n");
    }
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    let mut response = Vec::new();
    stream.read_to_end(&mut response).await.unwrap();
    let end = response.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let head = String::from_utf8_lossy(&response[..end]).to_string();
    let status = head.split_whitespace().nth(1).unwrap().parse().unwrap();
    (status, response[end + 4..].to_vec())
}

/// A publisher of one video track, with what it has sent of it.
pub struct Camera {
    pub client: Client,
    pub mid: Mid,
    pub track: String,
    pub sent: u64,
}

impl Camera {
    pub async fn publish(mut client: Client, cid: &str) -> Self {
        let mid = client.publish(cid, MediaKind::Video, &[]).await;
        drive(&mut [&mut client], |c| {
            let answered = c[0].publisher.rtc.media(mid).is_some();
            answered && c[0].publisher.connected && c[0].published(cid).is_some()
        })
        .await;
        let track = client.published(cid).unwrap();
        Self { client, mid, track, sent: 0 }
    }

    /// Sends a keyframe every 5 ms while the viewer runs, until the condition holds.
    pub async fn stream(&mut self, viewer: &mut Client, mut until: impl FnMut(&Client) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !until(viewer) {
            assert!(Instant::now() < deadline, "the condition was not met");
            let (seq, time) = (1_000 + self.sent, 450 * self.sent as u32);
            self.client.write(self.mid, None, seq, time, vp8(self.sent as u16, true, 0, 300));
            self.sent += 1;
            run_for(&mut [&mut self.client, viewer], Duration::from_millis(5)).await;
        }
    }

    /// Until the viewer has so many packets more.
    pub async fn stream_more(&mut self, viewer: &mut Client, more: usize) {
        let goal = self.seen(viewer) + more;
        let track = self.track.clone();
        self.stream(viewer, |viewer| seen(viewer, &track) >= goal).await;
    }

    pub fn seen(&self, viewer: &Client) -> usize {
        seen(viewer, &self.track)
    }
}

/// Packets of a track that the viewer has.
pub fn seen(viewer: &Client, track: &str) -> usize {
    viewer.packets.get(track).map_or(0, Vec::len)
}
