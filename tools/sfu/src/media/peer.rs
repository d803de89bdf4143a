//! One peer connection on a worker.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use stampede_core::crypto::with_key_slot;
use stampede_core::srtp::{KeyError, KeySlot};
use stampede_core::wire_time::abs_send_time;
use stampede_impair::{Class, Impairment, Loss};
use stampede_sdp::Slots;
use str0m::channel::ChannelId;
use str0m::media::{KeyframeRequestKind, Mid};
use str0m::net::{Protocol, Receive, TcpType, Transmit};
use str0m::rtp::rtcp::Twcc;
use str0m::rtp::{RtpPacket, Ssrc};
use str0m::{Candidate, IceCreds, Input, Output, Rtc};

use super::addresses::Addresses;
use super::answers::{Answer, Answers};
use super::challenge::ChallengeId;
use super::codec;
use super::congestion::remote::Estimate;
use super::congestion::send_side::log::SendLog;
use super::congestion::{Act, Congestion};
use super::connection::ConnectionConfig;
use super::egress::Egress;
use super::egress::report;
use super::egress::srtp::Srtp;
use super::endpoint::Endpoint;
use super::failure::{NegotiationError, PeerFailure};
use super::ice::{Credentials, Ufrags, Way};
use super::incoming::Incoming;
use super::message::{PeerKey, PeerLabel, PublishedTrack, Role, TrackKey};
use super::offers::{Offer, Offers};
use super::socket::{Datagram, MediaSocket};
use super::stun::{self, is_check};
use super::subscriptions::{EndedRow, Subscriptions};
use super::told::Blocks;
use crate::options;

/// Data channels one peer may open; more are ignored.
pub(crate) const PEER_CHANNELS_MAX: usize = 16;

/// A peer is looked at this often at least: an ICE-lite agent sets no timer for the silence of
/// its client.
const PEER_CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// LiveKit's interval of sender reports (`pkg/sfu/downtrack.go`).
const SENDER_REPORT_INTERVAL: Duration = Duration::from_secs(3);
/// LiveKit's `ignoreRetransmission` and `defaultRtt` (`pkg/sfu/sequencer.go`).
const REPEATS_AFTER_MAX: Duration = Duration::from_millis(100);
const ROUND_TRIP_DEFAULT: Duration = Duration::from_millis(70);
/// Of a stream that has just begun a client is told sooner: it needs the times to play audio with video.
const REPORT_FIRST: Duration = Duration::from_secs(1);

/// A peer connection.
pub(crate) struct Peer {
    key: PeerKey,
    label: PeerLabel,
    rtc: Rtc,
    ufrags: Ufrags,
    /// By what its client's ICE is known.
    credentials: Option<Credentials>,
    way: Way,
    addresses: Addresses,
    state: State,
    /// The earliest deadline in the timers.
    scheduled: Option<Instant>,
    /// It waits to be woken, with what is to be negotiated.
    waits: bool,
    channels: Vec<(ChannelId, String)>,
    /// Which of the client's packets are dropped on arrival.
    upstream_loss: Option<Loss>,
    /// The receiving half.
    incoming: Incoming,
    /// The sending half.
    outgoing: Outgoing,
    subscriptions: Subscriptions,
    negotiation: Negotiation,
    /// What the client has told of the way to it, once it has.
    congestion: Option<Box<Congestion>>,
    /// Its video may be paused if it does not fit.
    allow_pause: bool,
}

/// Who offers.
enum Negotiation {
    /// The SFU.
    Offers(Offers),
    /// The client.
    Answers(Answers),
}

/// What the client is to be told, so that what it gets is agreed on.
pub(crate) enum Wish {
    /// This offer of the SFU's.
    Offer(Offer),
    /// To offer, with so many m-lines to receive by more.
    Slots(Slots),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// ICE or DTLS are not done.
    Connecting,
    Connected,
    /// The signalling thread was told that it is over.
    Ended,
}

/// What packets to the client go through on their way out.
struct Outgoing {
    /// Where its SRTP keys will be found, until they were.
    keys: Option<KeySlot>,
    /// What its media is encrypted with, once DTLS has agreed on keys.
    srtp: Option<Box<Srtp>>,
    /// What is done to its packets on purpose.
    impair: Option<Box<Impairment>>,
    /// Number of the last round in which it had its turn.
    round: u64,
    /// Sending times count from here.
    began: Instant,
    /// What was sent to it, if packets have transport-wide numbers.
    log: Option<Box<SendLog>>,
    /// When it is told next what was sent to it, once it is connected.
    reports_at: Option<Instant>,
    /// To the client and back, by its last report.
    round_trip: Option<Duration>,
}

/// What a peer is made of beside its connection.
pub(crate) struct PeerSpec {
    pub(crate) key: PeerKey,
    pub(crate) role: Role,
    pub(crate) label: PeerLabel,
    /// What is done on purpose to packets of its sending half.
    pub(crate) impair: Option<Box<Impairment>>,
    /// Which packets of its receiving half are dropped on arrival.
    pub(crate) upstream_loss: Option<Loss>,
    /// It may come over TCP.
    pub(crate) tcp: bool,
    /// Its video may be paused if it does not fit the way to it.
    pub(crate) allow_pause: bool,
}

impl Peer {
    /// Makes a peer that answers connectivity checks at `address`.
    ///
    /// # Errors
    /// The address can't be a candidate.
    pub(crate) fn new(
        spec: PeerSpec,
        config: &ConnectionConfig,
        address: SocketAddr,
        now: Instant,
    ) -> Result<Self, PeerFailure> {
        let PeerSpec { key, role, label, impair, upstream_loss, tcp: spec_tcp, allow_pause } = spec;
        let credentials = IceCreds::new();
        let rtc_config = config.rtc(role, credentials);
        let (mut rtc, keys) = with_key_slot(|| rtc_config.build(now));
        rtc.add_local_candidate(Candidate::host(address, Protocol::Udp)?);
        if spec_tcp {
            let tcp = Candidate::builder().tcp().host(address).tcptype(TcpType::Passive);
            rtc.add_local_candidate(tcp.build()?);
        }
        let incoming = Incoming::new(keys.clone());
        let keys = role.sends().then_some(keys);
        let wants_arrivals = role.sends() && config.congestion() == options::Congestion::Twcc;
        let log = wants_arrivals.then(|| Box::new(SendLog::new(now)));
        let negotiation = match role.receives() {
            true => Negotiation::Answers(Answers::new(wants_arrivals)),
            false => Negotiation::Offers(Offers::default()),
        };
        Ok(Self {
            key,
            label,
            rtc,
            ufrags: Ufrags::default(),
            credentials: None,
            way: Way::Open,
            addresses: Addresses::default(),
            state: State::Connecting,
            scheduled: None,
            waits: false,
            channels: Vec::new(),
            upstream_loss,
            incoming,
            outgoing: Outgoing {
                keys,
                srtp: None,
                impair,
                round: 0,
                began: now,
                log,
                reports_at: None,
                round_trip: None,
            },
            subscriptions: Subscriptions::default(),
            negotiation,
            congestion: None,
            allow_pause,
        })
    }

    pub(crate) fn key(&self) -> PeerKey {
        self.key
    }

    pub(crate) fn label(&self) -> &PeerLabel {
        &self.label
    }

    /// It is to be found under this label in the ledger from now on. What it had subscribed to stays
    /// where it was.
    pub(crate) fn relabel(&mut self, label: PeerLabel) {
        self.label = label;
    }

    /// By which connectivity checks name it, of its ICE credentials of now.
    pub(crate) fn local_ufrag(&mut self) -> String {
        self.rtc.direct_api().local_ice_credentials().ufrag
    }

    /// By which connectivity checks may name it.
    pub(crate) fn ufrags(&mut self) -> &mut Ufrags {
        &mut self.ufrags
    }

    /// Whether ICE has a way to the client.
    pub(crate) fn way(&mut self) -> &mut Way {
        &mut self.way
    }

    /// A check by which its client is asked whether it is reached where that goes; `None` as long as it has
    /// not said how it is known.
    pub(crate) fn challenge(&mut self, id: ChallengeId) -> Option<Vec<u8>> {
        let own = self.local_ufrag();
        stun::challenge(id, &own, self.credentials.as_ref()?)
    }

    /// Whether an answer to a check is its client's.
    pub(crate) fn knows(&self, answer: &[u8]) -> bool {
        self.credentials.as_ref().is_some_and(|credentials| stun::is_of(answer, credentials))
    }

    /// Where it is heard and sent to.
    pub(crate) fn addresses(&mut self) -> &mut Addresses {
        &mut self.addresses
    }

    /// M-lines and SSRCs of its receiving half.
    pub(crate) fn incoming(&mut self) -> &mut Incoming {
        &mut self.incoming
    }

    /// What is sent by its sending half.
    pub(crate) fn subscriptions(&self) -> &Subscriptions {
        &self.subscriptions
    }

    /// Which codecs its client takes tracks in that have several, where that was not told yet.
    pub(crate) fn take_codecs(&mut self) -> Vec<(TrackKey, Vec<&'static str>)> {
        self.subscriptions.take_codecs(&self.rtc)
    }

    pub(crate) fn subscriptions_mut(&mut self) -> &mut Subscriptions {
        &mut self.subscriptions
    }

    /// What the client has told of the way to it, if it has.
    pub(crate) fn congestion(&self) -> Option<&Congestion> {
        self.congestion.as_deref()
    }

    pub(crate) fn congestion_mut(&mut self) -> Option<&mut Congestion> {
        self.congestion.as_deref_mut()
    }

    /// The client tells how much the way to it carries. What is to be done for that, if anything.
    pub(crate) fn take_estimate(&mut self, now: Instant, estimate: Estimate) -> Option<Act> {
        let congestion =
            self.congestion.get_or_insert_with(|| Congestion::by_estimates(now).into());
        congestion.estimate(now, estimate)
    }

    /// The client tells when packets arrived. What is to be done for that, if anything.
    pub(crate) fn take_arrivals(&mut self, now: Instant, report: Twcc) -> Option<Act> {
        let log = self.outgoing.log.as_deref_mut()?;
        let began = log.began();
        let new = || Congestion::by_arrivals(began, now).into();
        self.congestion.get_or_insert_with(new).report(now, log.read(report))
    }

    /// It is reached by another way.
    pub(crate) fn begin_way_anew(&mut self) {
        if let Some(log) = &mut self.outgoing.log {
            log.begin_anew();
        }
        if let Some(congestion) = &mut self.congestion {
            congestion.begin_anew();
        }
    }

    /// Whether its video may be paused if it does not fit.
    pub(crate) fn allows_pause(&self) -> bool {
        self.allow_pause
    }

    /// The connection, to look at.
    pub(crate) fn rtc(&self) -> &Rtc {
        &self.rtc
    }

    /// Whether ICE or DTLS are not done, so that what comes of it is nobody's media.
    pub(crate) fn is_joining(&self) -> bool {
        self.state == State::Connecting
    }

    /// Whether ICE and DTLS are up, so that media can be sent.
    pub(crate) fn is_connected(&self) -> bool {
        self.state == State::Connected && self.way.is_usable()
    }

    /// ICE and DTLS are up.
    pub(crate) fn set_connected(&mut self, now: Instant) {
        if self.state == State::Connecting {
            self.state = State::Connected;
            self.outgoing.reports_at = self.outgoing.srtp.is_some().then_some(now + REPORT_FIRST);
        }
    }

    /// DTLS has handed out no keys, so a subscriber could get no media.
    pub(crate) fn lacks_keys(&self) -> bool {
        self.outgoing.keys.is_some()
    }

    /// It is over. Whether that is new.
    pub(crate) fn end(&mut self) -> bool {
        std::mem::replace(&mut self.state, State::Ended) != State::Ended
    }

    /// Whether it is over.
    pub(crate) fn has_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Whether a datagram of the client's is to be dropped on purpose.
    pub(crate) fn loses(&mut self, datagram: &[u8]) -> bool {
        let Some(loss) = &mut self.upstream_loss else { return false };
        Class::of(datagram) == Class::Rtp && loss.loses()
    }

    /// An RTCP datagram of the client's in clear, if the client gets media; `None` for what is none, or
    /// not authentic.
    pub(crate) fn open_rtcp(&self, datagram: &[u8]) -> Option<Vec<u8>> {
        let srtp = self.outgoing.srtp.as_ref()?;
        if Class::of(datagram) == Class::Rtcp { srtp.open(datagram) } else { None }
    }

    /// Whether a datagram is to be looked at: a check from no more addresses than a peer may have, and
    /// media of streams that are the client's.
    pub(crate) fn admits(&mut self, source: Endpoint, datagram: &[u8]) -> bool {
        if is_check(datagram) {
            return self.addresses.admits(source);
        }
        Class::of(datagram) != Class::Rtp || self.incoming.admits(datagram)
    }

    /// The client tells when it got a sender report; `wall` is what the clock says now.
    pub(crate) fn learn_round_trip(&mut self, blocks: Blocks<'_>, wall: SystemTime) {
        let told = blocks.last_sender_report();
        let found = told.and_then(|(sent, since)| report::round_trip(wall, sent, since));
        self.outgoing.round_trip = found.or(self.outgoing.round_trip);
    }

    /// What was sent again is not sent again for so long (LiveKit `pkg/sfu/sequencer.go`,
    /// `getExtPacketMetas`).
    pub(crate) fn repeats_after(&self) -> Duration {
        REPEATS_AFTER_MAX.min(2 * self.outgoing.round_trip.unwrap_or(ROUND_TRIP_DEFAULT))
    }

    /// Gives str0m a datagram that the client sent to `address`. False if it is none of WebRTC.
    ///
    /// # Errors
    /// The connection is over.
    pub(crate) fn receive(
        &mut self,
        source: Endpoint,
        address: SocketAddr,
        datagram: &[u8],
        at: Instant,
    ) -> Result<bool, PeerFailure> {
        let Endpoint { protocol, address: source } = source;
        let Ok(receive) = Receive::new(protocol, source, address, datagram) else {
            return Ok(false);
        };
        self.rtc.handle_input(Input::Receive(at, receive))?;
        Ok(true)
    }

    /// Lets str0m see the time.
    ///
    /// # Errors
    /// The connection is over.
    pub(crate) fn advance(&mut self, now: Instant) -> Result<(), PeerFailure> {
        Ok(self.rtc.handle_input(Input::Timeout(now))?)
    }

    /// What str0m has to say or send next.
    ///
    /// # Errors
    /// The connection is over.
    pub(crate) fn poll(&mut self) -> Result<Output, PeerFailure> {
        let output = self.rtc.poll_output();
        self.outgoing.look_for_keys()?;
        Ok(output?)
    }

    /// Says goodbye; false if there is nobody to hear it.
    pub(crate) fn close(&mut self) -> bool {
        self.rtc.close().is_ok()
    }

    /// When to wake it, if that is earlier than was known: at `at`, or when something of it is due.
    pub(crate) fn schedule(&mut self, at: Instant, now: Instant) -> Option<Instant> {
        if self.has_ended() {
            return None;
        }
        let at = at.min(now + PEER_CHECK_INTERVAL);
        // What waits already needs no deadline.
        let negotiation = if self.waits { None } else { self.next_negotiation() };
        let congestion = self.congestion.as_ref().and_then(|congestion| congestion.next_at());
        let due = [negotiation, self.way.deadline(), congestion, self.outgoing.reports_at];
        let at = due.into_iter().flatten().fold(at, Instant::min);
        if self.scheduled.is_some_and(|scheduled| scheduled <= at) {
            return None;
        }
        self.scheduled = Some(at);
        Some(at)
    }

    /// Whether it is to be woken now; if so it has no further deadline.
    pub(crate) fn take_due(&mut self, now: Instant) -> bool {
        let due = self.scheduled.is_none_or(|at| at <= now);
        if due {
            self.scheduled = None;
        }
        due
    }

    /// It is to be woken once there is time for it. Whether that is new.
    pub(crate) fn begin_waiting(&mut self) -> bool {
        !std::mem::replace(&mut self.waits, true)
    }

    /// It is woken.
    pub(crate) fn end_waiting(&mut self) {
        self.waits = false;
    }

    /// Whether ICE was restarted and the client has checked nothing for too long.
    pub(crate) fn restart_timed_out(&self, now: Instant) -> bool {
        self.way.deadline().is_some_and(|deadline| now >= deadline)
    }

    /// The client can't be reached until [`restart_ice`](Self::restart_ice).
    pub(crate) fn suspend_negotiation(&mut self) {
        match &mut self.negotiation {
            Negotiation::Offers(offers) => offers.suspend(),
            Negotiation::Answers(answers) => answers.suspend(),
        }
    }

    /// The client can be reached. Where the SFU offers, asks for an offer that restarts ICE; the one
    /// to send again before it, if there is one.
    pub(crate) fn restart_ice(&mut self, now: Instant) -> Option<Offer> {
        match &mut self.negotiation {
            Negotiation::Offers(offers) => offers.restart(now),
            Negotiation::Answers(answers) => {
                answers.resume();
                None
            }
        }
    }

    /// Whether the client has left an offer unanswered for too long.
    pub(crate) fn negotiation_timed_out(&self, now: Instant) -> bool {
        matches!(&self.negotiation, Negotiation::Offers(offers) if offers.timed_out(now))
    }

    /// The client's answer may be among the commands that wait.
    pub(crate) fn wait_on_for_answer(&mut self, now: Instant) {
        if let Negotiation::Offers(offers) = &mut self.negotiation {
            offers.wait_on(now);
        }
    }

    /// What the client gets has changed; gives the moment to call [`negotiate`](Self::negotiate).
    pub(crate) fn want_negotiation(&mut self, now: Instant) -> Instant {
        match &mut self.negotiation {
            Negotiation::Offers(offers) => offers.want(now),
            Negotiation::Answers(answers) => answers.want(now),
        }
    }

    /// Whether the client may have to be told something now.
    pub(crate) fn has_to_negotiate(&self, now: Instant) -> bool {
        self.next_negotiation().is_some_and(|at| at <= now)
    }

    fn next_negotiation(&self) -> Option<Instant> {
        match &self.negotiation {
            Negotiation::Offers(offers) => offers.next(),
            Negotiation::Answers(answers) => answers.next(),
        }
    }

    /// What the client is to be told now, if anything, together with the ledger rows of
    /// subscriptions that ended.
    pub(crate) fn negotiate(&mut self, now: Instant) -> (Option<Wish>, Vec<EndedRow>) {
        let Self { negotiation, rtc, subscriptions, .. } = self;
        match negotiation {
            Negotiation::Offers(offers) => {
                let (offer, ended) = offers.offer(rtc, subscriptions, now);
                (offer.map(Wish::Offer), ended)
            }
            Negotiation::Answers(answers) => {
                // Their m-lines are free at once: an answer says so, whenever the client offers.
                let ended = subscriptions.forget_removed(rtc);
                let ended = ended.into_iter().map(|(row, _)| row).collect();
                (answers.missing(subscriptions, now).map(Wish::Slots), ended)
            }
        }
    }

    /// Takes the client's answer to an offer; one to none is ignored.
    ///
    /// # Errors
    /// The answer can't be used, and the negotiation can't go on.
    pub(crate) fn accept_answer(&mut self, id: u32, sdp: &str) -> Result<(), NegotiationError> {
        let Self { negotiation, rtc, subscriptions, .. } = self;
        let accepted = match negotiation {
            Negotiation::Offers(offers) => offers.accept_answer(rtc, subscriptions, id, sdp)?,
            Negotiation::Answers(_) => false,
        };
        if !accepted {
            tracing::debug!(peer = self.key.0, id, "answer without an offer ignored");
        } else {
            self.credentials = Credentials::of(sdp);
        }
        Ok(())
    }

    /// Answers a client's offer, in which these tracks are published; `None`, so that it is ignored,
    /// where the SFU offers.
    ///
    /// # Errors
    /// The offer can't be used.
    pub(crate) fn answer(
        &mut self,
        sdp: &str,
        published: &[PublishedTrack],
    ) -> Result<Option<Answer>, NegotiationError> {
        let Self { negotiation, rtc, subscriptions, .. } = self;
        match negotiation {
            Negotiation::Offers(_) => Ok(None),
            Negotiation::Answers(answers) => {
                let answer = subscriptions.while_lent(rtc, |subscriptions, rtc| {
                    answers.answer(rtc, subscriptions, sdp, published)
                })?;
                self.credentials = Credentials::of(sdp);
                Ok(Some(answer))
            }
        }
    }

    /// LiveKit's name of the codec that a track is to come in: the one it was announced in, or the
    /// first that was negotiated where that was not.
    pub(crate) fn negotiated_codec(&self, track: &PublishedTrack) -> Option<&'static str> {
        let known = self.rtc.codec_config().params();
        let negotiated = self.rtc.media(Mid::from(track.mid.as_str()))?.remote_pts();
        let mut names = negotiated.iter().filter_map(|number| {
            codec::mime_type(known.iter().find(|params| params.pt() == *number)?.spec().codec)
        });
        let first = names.clone().next();
        names.find(|name| name.eq_ignore_ascii_case(&track.mime_type)).or(first)
    }

    /// The m-line and RTP stream id of an incoming packet's SSRC.
    pub(crate) fn stream_of(&mut self, packet: &RtpPacket) -> Option<(Mid, Option<String>)> {
        let mut api = self.rtc.direct_api();
        let stream = api.stream_rx(&packet.header.ssrc)?;
        Some((stream.mid(), stream.rid().map(|rid| rid.to_string())))
    }

    /// Asks the publisher for a keyframe.
    pub(crate) fn request_keyframe(&mut self, ssrc: u32) {
        if let Some(stream) = self.rtc.direct_api().stream_rx(&Ssrc::from(ssrc)) {
            stream.request_keyframe(KeyframeRequestKind::Pli);
        }
    }

    /// The client has opened a data channel.
    pub(crate) fn open_channel(&mut self, id: ChannelId, label: String) {
        if self.channels.len() < PEER_CHANNELS_MAX {
            self.channels.push((id, label));
        }
    }

    /// What a data channel is called.
    pub(crate) fn channel_label(&self, id: ChannelId) -> Option<&str> {
        self.channels.iter().find(|(known, _)| *known == id).map(|(_, label)| label.as_str())
    }

    /// Writes a message into the data channel of that label; false if there is none, or its buffer is
    /// full.
    pub(crate) fn write_data(&mut self, label: &str, payload: &[u8]) -> bool {
        let id = self.channels.iter().find(|(_, known)| known == label).map(|(id, _)| *id);
        let Some(mut channel) = id.and_then(|id| self.rtc.channel(id)) else { return false };
        matches!(channel.write(true, payload), Ok(true))
    }

    /// Whether it has not had its turn in this round of the worker's, which are numbered upwards.
    pub(crate) fn begin_round(&mut self, round: u64) -> bool {
        std::mem::replace(&mut self.outgoing.round, round) != round
    }

    /// Its subscriptions with its way out, at `sent_at` by the clock, and its connection; `None` while
    /// no media can be sent.
    pub(crate) fn sending<'a>(
        &'a mut self,
        socket: &'a mut MediaSocket,
        now: Instant,
        sent_at: Instant,
    ) -> Option<(&'a mut Subscriptions, Egress<'a>, &'a Rtc)> {
        let destination = self.addresses.destination()?;
        let srtp = self.outgoing.srtp.as_deref()?;
        let impair = self.outgoing.impair.as_deref_mut();
        let send_time = abs_send_time(sent_at.saturating_duration_since(self.outgoing.began));
        let mut log = self.outgoing.log.as_deref_mut();
        if let Some(log) = &mut log {
            log.set_now(sent_at);
        }
        let egress = Egress { socket, srtp, impair, destination, now, send_time, log };
        Some((&mut self.subscriptions, egress, &self.rtc))
    }

    /// The client gets a stream that it has not been told of: when it is told, once it is connected.
    pub(crate) fn report_soon(&mut self, now: Instant) -> Option<Instant> {
        let at = self.outgoing.reports_at.as_mut()?;
        *at = (now + REPORT_FIRST).min(*at);
        Some(*at)
    }

    /// Tells the client what was sent to it, if that is due; `wall` is what the clock says now.
    pub(crate) fn report(&mut self, socket: &mut MediaSocket, now: Instant, wall: SystemTime) {
        if self.outgoing.reports_at.is_none_or(|at| now < at) {
            return;
        }
        self.outgoing.reports_at = Some(now + SENDER_REPORT_INTERVAL);
        let Self { subscriptions, outgoing, addresses, .. } = self;
        let Some(destination) = addresses.destination() else { return };
        let Some(srtp) = outgoing.srtp.as_deref_mut() else { return };
        let reports = subscriptions.iter().filter_map(|subscription| subscription.report(now));
        for compound in report::compounds(&reports.collect::<Vec<_>>(), wall) {
            let Some(sealed) = srtp.seal_rtcp(&compound) else { return };
            let mut copy = |buffer: &mut [u8]| {
                buffer.copy_from_slice(&sealed);
                true
            };
            let (len, class) = (sealed.len(), Class::Rtcp);
            let datagram = Datagram { destination, class, len, write: &mut copy };
            socket.put(now, outgoing.impair.as_deref_mut(), datagram);
        }
    }

    /// Sends one datagram of str0m's, or drops it where it must never leave. False if it is to go where it
    /// must not yet: the client is not known to be reached anywhere.
    pub(crate) fn transmit(
        &mut self,
        socket: &mut MediaSocket,
        transmit: &Transmit,
        now: Instant,
    ) -> bool {
        let class = Class::of(&transmit.contents);
        debug_assert!(class != Class::Rtp, "str0m is given no media to send");
        if class == Class::Rtp {
            // Two writers of one SSRC would encrypt with one IV twice.
            tracing::error!(peer = self.key.0, "an RTP packet of str0m's is not sent");
            return true;
        }
        let destination = Endpoint { protocol: transmit.proto, address: transmit.destination };
        let destination = match is_check(&transmit.contents) {
            true => Some(destination),
            false => self.addresses.destination_or(destination),
        };
        let Some(destination) = destination else { return false };
        self.put(socket, destination, &transmit.contents, now);
        true
    }

    /// Sends what is no media, past str0m.
    pub(crate) fn put(
        &mut self,
        socket: &mut MediaSocket,
        destination: Endpoint,
        payload: &[u8],
        now: Instant,
    ) {
        let mut copy = |buffer: &mut [u8]| {
            buffer.copy_from_slice(payload);
            true
        };
        let (class, len) = (Class::of(payload), payload.len());
        let datagram = Datagram { destination, class, len, write: &mut copy };
        socket.put(now, self.outgoing.impair.as_deref_mut(), datagram);
    }
}

impl Outgoing {
    /// Takes the keys that DTLS has agreed on, once it has.
    ///
    /// # Errors
    /// They are of no use, so the subscriber could never get any media.
    fn look_for_keys(&mut self) -> Result<(), KeyError> {
        if self.keys.as_ref().is_some_and(|keys| keys.get().is_some())
            && let Some(keying) = self.keys.take().as_ref().and_then(|keys| keys.get())
        {
            self.srtp = Some(Box::new(Srtp::new(keying)?));
        }
        Ok(())
    }
}
