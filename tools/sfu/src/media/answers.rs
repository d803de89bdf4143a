//! Answers to a client's offers: those of a publisher by v0, and all by v1, where the client offers
//! m-lines to receive by as well, which are called slots (LiveKit `pkg/rtc/transport.go`).
//!
//! A track gets the lowest slot of its kind that is free. When it is gone the slot is answered
//! `inactive`, and is free for the next one, with other SSRCs. The SFU never offers: it says how many
//! slots are missing, or none where it only wants an offer.
//!
//! str0m answers every slot with streams to send and a stream id of its own. Here the streams of free
//! slots are taken from it again, and its text is amended.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use stampede_sdp::{Description, Media, MediaKind, MediaType, ParseError, Slots};
use str0m::Rtc;
use str0m::change::SdpOffer;
use str0m::media::Mid;

use super::connection::{SEND_TIME, is_of_extension};
use super::failure::NegotiationError;
use super::message::PublishedTrack;
use super::subscriptions::Subscriptions;

/// Changes are collected this long before an offer is asked for (LiveKit `pkg/rtc/transport.go`,
/// `negotiationFrequency`).
const NEGOTIATION_DEBOUNCE: Duration = Duration::from_millis(150);
/// M-lines of an offer that is answered: twice the slots that a client of ours ever offers. Each of
/// them costs some kilobytes.
const MEDIA_MAX: usize = 2 * stampede_sdp::SLOTS_MAX as usize;
/// Words of an m-line before its formats: media, port and protocol (RFC 8866 §5.14).
const M_LINE_HEAD: usize = 3;

/// Where the negotiation is of a connection whose client offers.
#[derive(Default)]
pub(crate) struct Answers {
    /// Who receives video is to tell when each packet arrived.
    wants_arrivals: bool,
    /// M-lines that the latest offer has to receive by, in their order.
    slots: Vec<Slot>,
    /// When to ask for an offer.
    due: Option<Instant>,
    /// What was missing when it was last said, unless something has changed since. A client that
    /// offers no more is not asked again and again.
    said: Option<Slots>,
    /// The client can't be reached: it is asked for nothing.
    suspended: bool,
}

/// An m-line to receive by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slot {
    mid: Mid,
    kind: MediaKind,
    /// It was some track's.
    used: bool,
}

/// An answer, and what comes after it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) sdp: String,
    /// Of all slots that are some track's.
    pub(crate) mid_to_track_id: Vec<(String, String)>,
    /// Slots that the client is to offer beyond those it has offered.
    pub(crate) missing: Option<Slots>,
    /// Where audio that is published is to be redundant.
    pub(crate) red_mids: Vec<String>,
}

impl Answers {
    /// Where it is wanted to be told when each packet of video arrived, or not.
    pub(crate) fn new(wants_arrivals: bool) -> Self {
        Self { wants_arrivals, ..Self::default() }
    }

    /// Asks for an offer soon; gives the moment to call [`missing`](Self::missing).
    pub(crate) fn want(&mut self, now: Instant) -> Instant {
        self.said = None;
        *self.due.get_or_insert(now + NEGOTIATION_DEBOUNCE)
    }

    /// The client can't be reached until [`resume`](Self::resume).
    pub(crate) fn suspend(&mut self) {
        self.suspended = true;
    }

    /// The client can be reached again, and may not have heard what was missing.
    pub(crate) fn resume(&mut self) {
        self.suspended = false;
        self.said = None;
    }

    /// When something has to be done.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.due.filter(|_| !self.suspended)
    }

    /// How many slots to ask for now, which may be none; `None` if no offer is to be asked for.
    pub(crate) fn missing(&mut self, subscriptions: &Subscriptions, now: Instant) -> Option<Slots> {
        self.due.take_if(|due| !self.suspended && *due <= now)?;
        let missing = self.count_missing(subscriptions);
        self.said = Some(missing);
        Some(missing)
    }

    fn count_missing(&self, subscriptions: &Subscriptions) -> Slots {
        let of = |kind| {
            let waiting = subscriptions.iter().filter(|it| it.is_new() && it.offer().kind == kind);
            let slots = self.slots.iter().filter(|slot| slot.kind == kind);
            let free = slots.filter(|slot| subscriptions.bound_to(slot.mid).is_none()).count();
            u32::try_from(waiting.count().saturating_sub(free)).unwrap_or(u32::MAX)
        };
        Slots { audio: of(MediaKind::Audio), video: of(MediaKind::Video) }
    }

    /// Answers an offer: gives its slots to tracks that wait for one, from which on they are sent,
    /// and says in the m-lines of audio that is published how to send it.
    ///
    /// # Errors
    /// The offer can't be used.
    pub(crate) fn answer(
        &mut self,
        rtc: &mut Rtc,
        subscriptions: &mut Subscriptions,
        sdp: &str,
        published: &[PublishedTrack],
    ) -> Result<Answer, NegotiationError> {
        let offer = Description::parse(sdp)?;
        if offer.media.len() > MEDIA_MAX {
            let m_lines = offer.media.len();
            return Err(NegotiationError::TooManyMedia { m_lines, max: MEDIA_MAX });
        }
        self.read_slots(&offer);
        let offered = |mid| self.slots.iter().any(|slot| slot.mid == mid);
        subscriptions.unbind_unless(offered, rtc);
        let answer = rtc.sdp_api().accept_offer(SdpOffer::from_sdp_string(sdp)?)?.to_sdp_string();
        for slot in &mut self.slots {
            let bound = subscriptions.bound_to(slot.mid).is_some()
                || subscriptions.bind_waiting(slot.kind, slot.mid, rtc);
            slot.used |= bound;
            if !bound {
                let mut api = rtc.direct_api();
                if let Some(ssrc) = api.stream_tx_by_mid(slot.mid, None).map(|it| it.ssrc()) {
                    api.remove_stream_tx(ssrc);
                }
            }
        }
        self.due = None;
        let missing = self.count_missing(subscriptions);
        let missing = Some(missing).filter(|it| *it != Slots::default() && self.said != Some(*it));
        self.said = missing.or(self.said);
        let bound = subscriptions.iter().filter_map(|subscription| {
            Some((subscription.mid()?.to_string(), subscription.offer().sid.to_string()))
        });
        let mid_to_track_id = bound.collect();
        let amended = amend(&answer, self.wants_arrivals, |media| {
            let mid = Mid::from(media.mid);
            let slot = self.slots.iter().find(|slot| slot.mid == mid)?;
            let offer = subscriptions.bound_to(mid).map(|it| it.offer());
            Some(match (offer, slot.used) {
                (Some(offer), _) => Sending::Track {
                    stream: format!("{}|{}", offer.publisher_sid, offer.sid),
                    track: offer.sid.to_string(),
                },
                (None, true) => Sending::NoLonger,
                (None, false) => Sending::NotYet,
            })
        })?;
        let (sdp, red_mids) = with_published(&amended, &offer, published)?;
        Ok(Answer { sdp, mid_to_track_id, missing, red_mids })
    }

    /// Notes the slots of an offer.
    fn read_slots(&mut self, offer: &Description<'_>) {
        let before = std::mem::take(&mut self.slots);
        let media = offer.media.iter().filter(|media| {
            media.direction == stampede_sdp::Direction::RecvOnly && !offer.is_rejected(media)
        });
        self.slots.extend(media.filter_map(|media| {
            let (mid, kind) = (Mid::from(media.mid), media.media_type.kind()?);
            let used = before.iter().any(|slot| slot.mid == mid && slot.used);
            Some(Slot { mid, kind, used })
        }));
    }
}

/// What is sent by a slot.
enum Sending {
    Track { stream: String, track: String },
    NotYet,
    NoLonger,
}

/// str0m's answer as LiveKit has it: by slots tracks are sent, or nothing. Feedback about
/// transport-wide sequence numbers is wanted of nobody who receives unless such numbers are sent, with
/// video alone. Their header extension stays: what was refused once for a kind of media, Chromium never
/// offers again, and it needs them for what it sends.
fn amend(
    answer: &str,
    wants_arrivals: bool,
    sending: impl Fn(&Media<'_>) -> Option<Sending>,
) -> Result<String, ParseError> {
    let mut latest: Option<(String, Option<Sending>)> = None;
    let amended = Description::parse(answer)?.rewrite(|media, line| {
        let Some(media) = media else {
            // It names str0m's own stream ids.
            let own = line.starts_with("a=msid-semantic:");
            return Some(if own { "a=msid-semantic:WMS *".into() } else { line.into() });
        };
        if latest.as_ref().is_none_or(|(mid, _)| mid != media.mid) {
            latest = Some((media.mid.to_owned(), sending(media)));
        }
        match &latest {
            Some((_, Some(sending))) => {
                let unwanted = !wants_arrivals || media.media_type != MediaType::Video;
                let of_arrivals = line.starts_with("a=rtcp-fb:") && line.ends_with(" transport-cc");
                if unwanted && of_arrivals { None } else { sending.line(line) }
            }
            _ => Some(line.into()),
        }
    });
    Ok(amended)
}

impl Sending {
    /// A line of a slot's m-line.
    fn line<'a>(&self, line: &'a str) -> Option<Cow<'a, str>> {
        let Self::Track { stream, track } = self else {
            if line.starts_with("a=msid:") || line.starts_with("a=ssrc") {
                return None;
            }
            let inactive = matches!(self, Self::NoLonger) && line == "a=sendonly";
            return Some(if inactive { "a=inactive".into() } else { line.into() });
        };
        if line.starts_with("a=msid:") {
            return Some(format!("a=msid:{stream} {track}").into());
        }
        let Some((ssrc, attribute)) =
            line.strip_prefix("a=ssrc:").and_then(|rest| rest.split_once(' '))
        else {
            return Some(line.into());
        };
        Some(match attribute.split_once(':') {
            Some(("cname", _)) => format!("a=ssrc:{ssrc} cname:{stream}").into(),
            Some(("msid", _)) => format!("a=ssrc:{ssrc} msid:{stream} {track}").into(),
            _ => line.into(),
        })
    }
}

/// The answer as LiveKit has it for what is published, with the mids of audio that is to be redundant.
///
/// Audio (`pkg/rtc/participant_sdp.go`): tracks that may leave out silence have `usedtx=1` (RFC 7587
/// §6.1). Where a track is to be redundant, RED stands before Opus, as str0m puts it, and so does
/// libwebrtc send it; elsewhere it stands behind, or is left out if that m-line did not offer it.
///
/// Video (`pkg/rtc/transport.go`, `configureReceiverCodecs`): the codec that a track was announced in
/// comes first, since a browser sends the first that it is told.
fn with_published(
    answer: &str,
    offer: &Description<'_>,
    published: &[PublishedTrack],
) -> Result<(String, Vec<String>), ParseError> {
    let description = Description::parse(answer)?;
    let mut red_mids = Vec::new();
    let mut audio = None;
    let text = description.rewrite(|media, line| {
        let Some(media) = media else { return Some(line.into()) };
        match media.media_type {
            MediaType::Audio => {}
            MediaType::Video if line.starts_with("m=") => {
                return announced_first(media, published, line);
            }
            _ => return Some(line.into()),
        }
        if is_of_extension(line, SEND_TIME) {
            return None;
        }
        if line.starts_with("m=") {
            audio = AudioFormats::of(media, offer, published);
            if audio.as_ref().is_some_and(|audio| audio.red_first) {
                red_mids.push(media.mid.to_owned());
            }
        }
        match &audio {
            Some(audio) => audio.line(line),
            None => Some(line.into()),
        }
    });
    Ok((text, red_mids))
}

/// An m-line of video with the codec in front that its track was announced in.
fn announced_first<'a>(
    media: &Media<'_>,
    published: &[PublishedTrack],
    line: &'a str,
) -> Option<Cow<'a, str>> {
    let track = published.iter().find(|track| track.mid == media.mid);
    let Some((_, encoding)) = track.and_then(|track| track.mime_type.split_once('/')) else {
        return Some(line.into());
    };
    let is_announced = |word: &str| {
        let mut formats = media.payload_types.iter().filter(|format| format.is(encoding));
        formats.any(|format| format.number.to_string() == word)
    };
    let words: Vec<&str> = line.split(' ').collect();
    let (head, formats) = words.split_at(M_LINE_HEAD.min(words.len()));
    let (first, others): (Vec<&str>, _) = formats.iter().partition(|word| is_announced(word));
    Some([head.to_vec(), first, others].concat().join(" ").into())
}

/// What an m-line of an answer says of Opus and RED.
struct AudioFormats {
    opus: u8,
    red: Option<u8>,
    /// That m-line of the offer has RED.
    red_offered: bool,
    red_first: bool,
    dtx: bool,
}

impl AudioFormats {
    fn of(
        media: &Media<'_>,
        offer: &Description<'_>,
        published: &[PublishedTrack],
    ) -> Option<Self> {
        let number = |media: &Media<'_>, name| {
            Some(media.payload_types.iter().find(|format| format.is(name))?.number)
        };
        let track = published.iter().find(|track| track.mid == media.mid);
        let offered = offer.media.iter().find(|offered| offered.mid == media.mid);
        let red = number(media, "red");
        let red_offered = offered.is_some_and(|offered| number(offered, "red").is_some());
        Some(Self {
            opus: number(media, "opus")?,
            red,
            red_offered,
            red_first: red.is_some() && red_offered && track.is_some_and(|track| track.red),
            dtx: track.is_some_and(|track| track.dtx),
        })
    }

    fn line<'a>(&self, line: &'a str) -> Option<Cow<'a, str>> {
        let of = |number: u8| {
            ["a=rtpmap:", "a=fmtp:", "a=rtcp-fb:"].iter().any(|attribute| {
                let rest = line.strip_prefix(attribute);
                rest.and_then(|rest| rest.split(' ').next()) == Some(number.to_string().as_str())
            })
        };
        if line.starts_with("m=") && !self.red_first && self.red.is_some() {
            let red = self.red.map(|red| red.to_string()).unwrap_or_default();
            let words = line.split(' ').enumerate();
            let others = words.filter(|(place, it)| *place < M_LINE_HEAD || *it != red);
            let mut words: Vec<&str> = others.map(|(_, word)| word).collect();
            if self.red_offered {
                words.push(&red);
            }
            return Some(words.join(" ").into());
        }
        if !self.red_offered && self.red.is_some_and(of) {
            return None;
        }
        let dtx = self.dtx && line.starts_with("a=fmtp:") && of(self.opus);
        Some(if dtx { format!("{line};usedtx=1").into() } else { line.into() })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may panic")]

    use std::sync::Arc;

    use str0m::media::Direction;
    use str0m::{Candidate, IceCreds, RtcConfig};

    use super::*;
    use crate::media::connection::ConnectionConfig;
    use crate::media::message::{Role, TrackKey};
    use crate::media::subscription::Subscription;
    use crate::options::Congestion;

    /// A client's connection and the SFU's end of it.
    struct Rig {
        client: Rtc,
        server: Rtc,
        answers: Answers,
        subscriptions: Subscriptions,
        /// M-lines that the client has offered.
        slots: Vec<Mid>,
        /// The offer with whatever the test does to it.
        amended: fn(&str) -> String,
    }

    impl Rig {
        fn new() -> Self {
            Self::told_by(Congestion::Remb)
        }

        fn told_by(congestion: Congestion) -> Self {
            let now = Instant::now();
            let crypto = stampede_core::crypto::provider;
            let config = ConnectionConfig::generate(crypto()).unwrap();
            let config = config.with_congestion(congestion);
            let mut server = config.rtc(Role::Single, IceCreds::new()).build(now);
            let address = "127.0.0.1:9".parse().unwrap();
            server.add_local_candidate(Candidate::host(address, "udp").unwrap());
            Self {
                client: RtcConfig::new().set_crypto_provider(Arc::new(crypto())).build(now),
                server,
                answers: Answers::new(congestion == Congestion::Twcc),
                subscriptions: Subscriptions::default(),
                slots: Vec::new(),
                amended: str::to_owned,
            }
        }

        fn subscribe(&mut self, track: usize, kind: MediaKind) {
            self.subscriptions.add(Subscription::example(track, kind));
        }

        /// The client offers so many m-lines more to receive audio and video by.
        fn offer(&mut self, audio: u32, video: u32) -> Result<Answer, NegotiationError> {
            let mut api = self.client.sdp_api();
            // str0m itself would offer nothing of what was answered `inactive`.
            self.slots.iter().for_each(|slot| api.set_direction(*slot, Direction::RecvOnly));
            for (kind, count) in
                [(str0m::media::MediaKind::Audio, audio), (str0m::media::MediaKind::Video, video)]
            {
                for _ in 0..count {
                    let mid = api.add_media(kind, Direction::RecvOnly, None, None, None);
                    self.slots.push(mid);
                }
            }
            let (offer, pending) = api.apply().unwrap();
            let offer = (self.amended)(&offer.to_sdp_string());
            let Self { answers, server, subscriptions, client, .. } = self;
            let answer = subscriptions.while_lent(server, |subscriptions, server| {
                answers.answer(server, subscriptions, &offer, &[])
            })?;
            let sdp = str0m::change::SdpAnswer::from_sdp_string(&answer.sdp).unwrap();
            client.sdp_api().accept_answer(pending, sdp).unwrap();
            Ok(answer)
        }
    }

    #[test]
    fn what_is_missing_is_said_once_and_again_when_it_may_be_lost() {
        let (mut rig, start) = (Rig::new(), Instant::now());
        let later = start + NEGOTIATION_DEBOUNCE;
        for track in 0..3 {
            rig.subscribe(track, MediaKind::Video);
        }
        let two = Slots { audio: 0, video: 2 };
        let answer = rig.offer(1, 1).unwrap();
        assert_eq!((answer.mid_to_track_id.len(), answer.missing), (1, Some(two)));
        // The client has made this one before it heard of that, and adds nothing that helps.
        assert_eq!(rig.offer(1, 0).unwrap().missing, None);
        rig.answers.resume();
        assert_eq!(rig.offer(1, 0).unwrap().missing, Some(two));
        assert_eq!(rig.offer(0, 1).unwrap().missing, Some(Slots { audio: 0, video: 1 }));

        assert_eq!(rig.answers.missing(&rig.subscriptions, later), None, "nothing has changed");
        rig.subscribe(3, MediaKind::Audio);
        assert_eq!(rig.answers.want(start), later);
        assert_eq!(rig.answers.want(later), later, "one for all changes");
        rig.answers.suspend();
        assert_eq!(rig.answers.missing(&rig.subscriptions, later), None, "nobody hears it");
        rig.answers.resume();
        assert_eq!(rig.answers.missing(&rig.subscriptions, start), None);
        let one = Slots { audio: 0, video: 1 };
        assert_eq!(rig.answers.missing(&rig.subscriptions, later), Some(one), "audio has slots");
        assert_eq!(rig.answers.next(), None);
        let answer = rig.offer(0, 1).unwrap();
        assert_eq!((answer.mid_to_track_id.len(), answer.missing), (4, None));
        rig.answers.want(later);
        let wanted = rig.answers.missing(&rig.subscriptions, later + NEGOTIATION_DEBOUNCE);
        assert_eq!(wanted, Some(Slots::default()), "an offer, and no m-line");
    }

    #[test]
    fn str0m_knows_a_stream_only_while_it_writes_of_it() {
        let mut rig = Rig::new();
        let mut named: Vec<Vec<String>> = Vec::new();
        let kinds = [MediaKind::Video, MediaKind::Audio, MediaKind::Video, MediaKind::Audio];
        for (track, kind) in kinds.into_iter().enumerate() {
            rig.subscribe(track, kind);
            let audio = u32::from(kind == MediaKind::Audio);
            let answer = rig.offer(audio, 1 - audio).unwrap();
            assert_eq!((answer.mid_to_track_id.len(), answer.missing), (track + 1, None));
            let of_streams = answer.sdp.lines().filter(|line| line.starts_with("a=ssrc"));
            named.push(of_streams.map(str::to_owned).collect());
            for slot in &rig.slots {
                let (mut server, mut client) = (rig.server.direct_api(), rig.client.direct_api());
                assert!(server.stream_tx_by_mid(*slot, None).is_none(), "{track}");
                assert!(client.stream_rx_by_mid(*slot, None).is_some(), "{track}");
            }
        }
        for (fewer, more) in named.iter().zip(&named[1..]) {
            assert!(!fewer.is_empty() && more.starts_with(fewer), "{fewer:?} {more:?}");
            assert!(more.len() > fewer.len());
        }
    }

    #[test]
    fn by_slots_of_video_arrivals_are_wanted_or_estimates() {
        for (congestion, wanted, unwanted) in [
            (Congestion::Remb, ["goog-remb", "abs-send-time"], " transport-cc"),
            (Congestion::Twcc, [" transport-cc", "transport-wide-cc"], "goog-remb"),
        ] {
            let mut rig = Rig::told_by(congestion);
            rig.subscribe(0, MediaKind::Video);
            rig.subscribe(1, MediaKind::Audio);
            let sdp = rig.offer(1, 1).unwrap().sdp;
            let (audio, video) = sdp.split_once("m=video").unwrap();
            assert!(wanted.iter().all(|wanted| video.contains(wanted)), "{congestion:?} {video}");
            assert!(!video.contains(unwanted), "{congestion:?} {video}");
            assert!(!audio.contains(" transport-cc") && !audio.contains("goog-remb"), "{audio}");
        }
    }

    #[test]
    fn a_track_whose_m_line_is_taken_away_waits_for_another() {
        let mut rig = Rig::new();
        rig.subscribe(0, MediaKind::Video);
        let answer = rig.offer(0, 1).unwrap();
        assert_eq!(answer.mid_to_track_id.len(), 1);
        assert!(answer.sdp.contains("a=msid:PA_1|TR_0 TR_0"), "{}", answer.sdp);
        // Chromium would never again offer what is refused once, and sends by it.
        assert!(answer.sdp.contains("transport-wide-cc-extensions"), "{}", answer.sdp);
        let (slot, _) = answer.mid_to_track_id[0].clone();
        rig.amended = |offer| offer.replace("a=recvonly", "a=inactive");
        let answer = rig.offer(1, 0).unwrap();
        assert_eq!(answer.mid_to_track_id, []);
        assert_eq!(answer.missing, Some(Slots { audio: 0, video: 1 }));
        rig.amended = str::to_owned;
        let answer = rig.offer(1, 0).unwrap();
        assert_eq!(answer.mid_to_track_id, [(slot, "TR_0".to_owned())]);
    }

    #[test]
    fn only_video_says_when_it_was_sent() {
        let mut rig = Rig::new();
        let sdp = rig.offer(1, 1).unwrap().sdp;
        let (audio, video) = sdp.split_once("m=video").unwrap();
        assert!(audio.contains("m=audio") && !audio.contains("abs-send-time"), "{sdp}");
        assert_eq!(video.matches("abs-send-time").count(), 1, "{sdp}");
    }

    #[test]
    fn m_lines_are_bounded() {
        let mut rig = Rig::new();
        let max = u32::try_from(MEDIA_MAX).unwrap();
        let error = rig.offer(max + 1, 0).unwrap_err();
        assert!(matches!(error, NegotiationError::TooManyMedia { .. }), "{error}");
    }

    #[test]
    fn audio_is_asked_for_as_its_publisher_may_send_it() {
        let section = |mid: &str, numbers: &str, red: bool, parameters: &str| {
            let red = if red { "a=rtpmap:63 red/48000/2\r\na=fmtp:63 111/111\r\n" } else { "" };
            format!(
                "m=audio 9 UDP/TLS/RTP/SAVPF {numbers}\r\na=rtpmap:111 opus/48000/2\r\n{red}\
                 a=rtpmap:8 PCMA/8000\r\na=fmtp:111 {parameters}\r\na=fmtp:8 x=1\r\n\
                 a=mid:{mid}\r\n"
            )
        };
        let plain = "useinbandfec=1";
        let answered = |mid| section(mid, "63 111 8", true, plain);
        let answer = format!("v=0\r\n{}", ["0", "1", "2", "3"].map(answered).concat());
        // The last m-line does not offer RED.
        let offered = |(mid, red)| {
            let numbers = if red { "111 63 8" } else { "111 8" };
            section(mid, numbers, red, plain)
        };
        let offered = [("0", true), ("1", true), ("2", true), ("3", false)].map(offered).concat();
        let offer = format!("v=0\r\n{offered}");
        let track = |mid: &str, dtx, red| PublishedTrack {
            track: TrackKey(0),
            sid: "TR_1".into(),
            mid: mid.to_owned(),
            kind: MediaKind::Audio,
            mime_type: "audio/opus".into(),
            dtx,
            red,
            microphone: true,
        };
        let published = [track("1", true, true), track("2", false, false), track("3", true, true)];
        let offer = Description::parse(&offer).unwrap();
        let (text, red_mids) = with_published(&answer, &offer, &published).unwrap();
        let dtx = "useinbandfec=1;usedtx=1";
        let wanted = [
            section("0", "111 8 63", true, plain),
            section("1", "63 111 8", true, dtx),
            section("2", "111 8 63", true, plain),
            section("3", "111 8", false, dtx),
        ];
        assert_eq!(text, format!("v=0\r\n{}", wanted.concat()));
        assert_eq!(red_mids, ["1"]);
    }

    #[test]
    fn the_codec_that_a_track_was_announced_in_comes_first() {
        let section = |mid: &str, formats: &str| {
            format!(
                "m=video 9 UDP/TLS/RTP/SAVPF {formats}\r\na=rtpmap:96 VP8/90000\r\n\
                 a=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\na=rtpmap:98 VP9/90000\r\n\
                 a=rtpmap:100 VP9/90000\r\na=fmtp:100 profile-id=2\r\na=mid:{mid}\r\n"
            )
        };
        let track = |mid: &str, mime_type: &str| PublishedTrack {
            track: TrackKey(0),
            sid: "TR_1".into(),
            mid: mid.to_owned(),
            kind: MediaKind::Video,
            mime_type: mime_type.to_owned(),
            dtx: false,
            red: false,
            microphone: false,
        };
        // Of the last m-line nothing is known, and one is of a codec that is not there.
        let published = [
            track("0", "video/vp9"),
            track("1", "video/VP8"),
            track("2", "video/AV1"),
            track("3", ""),
        ];
        let text = |formats: [&str; 5]| {
            let sections = formats.iter().enumerate();
            let sections: Vec<_> =
                sections.map(|(mid, formats)| section(&mid.to_string(), formats)).collect();
            format!("v=0\r\n{}", sections.concat())
        };
        let plain = "96 97 98 100";
        let answer = text([plain; 5]);
        let offer = Description::parse(&answer).unwrap();
        let (amended, _) = with_published(&answer, &offer, &published).unwrap();
        assert_eq!(amended, text(["98 100 96 97", plain, plain, plain, plain]));
    }
}
