//! An offer taken apart.

/// An offer: its lines, without their ends.
#[derive(Debug)]
pub(crate) struct Offer<'a> {
    session: Vec<&'a str>,
    pub(super) sections: Vec<Section<'a>>,
}

/// One m-line and what belongs to it.
#[derive(Debug)]
pub(super) struct Section<'a> {
    /// `audio`, `video`, `application`.
    pub(super) media: &'a str,
    pub(super) port: &'a str,
    pub(super) protocol: &'a str,
    /// Payload types, or `webrtc-datachannel`.
    pub(super) formats: Vec<&'a str>,
    pub(super) mid: &'a str,
    lines: Vec<&'a str>,
}

impl<'a> Offer<'a> {
    /// # Errors
    /// What is wrong with the text, in words.
    pub(crate) fn parse(sdp: &'a str) -> Result<Self, String> {
        let mut lines = sdp.lines().map(str::trim_end).filter(|line| !line.is_empty()).peekable();
        if lines.peek() != Some(&"v=0") {
            return Err("it does not begin with v=0".to_owned());
        }
        let mut offer = Self { session: Vec::with_capacity(16), sections: Vec::new() };
        for line in lines {
            if line.as_bytes().get(1) != Some(&b'=') {
                return Err(format!("{line:?} is no line of SDP"));
            }
            if let Some(media) = line.strip_prefix("m=") {
                offer.sections.push(Section::begin(media)?);
                continue;
            }
            match offer.sections.last_mut() {
                Some(section) => section.lines.push(line),
                None => offer.session.push(line),
            }
        }
        if offer.sections.is_empty() {
            return Err("it has no m-line".to_owned());
        }
        for index in 0..offer.sections.len() {
            let mid = offer.sections[index].attribute("mid").unwrap_or_default();
            let is_known = offer.sections[..index].iter().any(|section| section.mid == mid);
            if mid.is_empty() || is_known {
                return Err(format!("m-line {index} has no mid of its own"));
            }
            offer.sections[index].mid = mid;
        }
        Ok(offer)
    }

    /// Values of this attribute of the session.
    pub(super) fn session_attributes(&self, name: &str) -> impl Iterator<Item = &'a str> {
        attributes(&self.session, name)
    }

    /// The first value of an attribute, for the whole session or on any m-line: of a bundle they
    /// share the transport (RFC 9143 §7.2).
    pub(super) fn shared(&self, name: &str) -> Option<&'a str> {
        let mut sections = self.sections.iter();
        let of_session = self.session_attributes(name).next();
        of_session.or_else(|| sections.find_map(|section| section.attribute(name)))
    }

    /// Port 0 outside of the bundle: the m-line is not in use (RFC 9143 §7.3.3).
    pub(super) fn is_rejected(&self, section: &Section<'_>) -> bool {
        let mut groups = self.session_attributes("group");
        section.port == "0"
            && !groups.any(|group| group.split(' ').skip(1).any(|mid| mid == section.mid))
    }
}

impl<'a> Section<'a> {
    fn begin(media_line: &'a str) -> Result<Self, String> {
        let mut words = media_line.split_ascii_whitespace();
        let mut word = || words.next().ok_or_else(|| format!("\"m={media_line}\" is cut short"));
        let (media, port, protocol) = (word()?, word()?, word()?);
        let formats = words.collect();
        Ok(Self { media, port, protocol, formats, mid: "", lines: Vec::with_capacity(32) })
    }

    /// Values of this attribute; empty for a flag.
    pub(super) fn attributes(&self, name: &str) -> impl Iterator<Item = &'a str> {
        attributes(&self.lines, name)
    }

    /// The first of [`Self::attributes`].
    pub(super) fn attribute(&self, name: &str) -> Option<&'a str> {
        self.attributes(name).next()
    }
}

fn attributes<'a>(lines: &[&'a str], name: &str) -> impl Iterator<Item = &'a str> {
    lines.iter().filter_map(move |line| {
        let value = line.strip_prefix("a=")?.strip_prefix(name)?;
        if value.is_empty() { Some(value) } else { value.strip_prefix(':') }
    })
}
