//! What access units of H.264 and H.265 begin with, by which one behind a gap is known to be there
//! from its beginning.

use stampede_media::nal_units::Head;

/// The foremost packet of an access unit that one can begin with.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Front(Option<(u64, Head)>);

impl Front {
    pub(super) fn read(&mut self, sequence: u64, head: Option<Head>) {
        let foremost = self.0.is_none_or(|(front, _)| sequence < front);
        if let Some(head) = head.filter(|_| foremost) {
            self.0 = Some((sequence, head));
        }
    }
}

/// What the stream's pictures and its random access points begin with, as far as seen whole.
#[derive(Debug, Default)]
pub(super) struct Heads([Option<Head>; 2]);

impl Heads {
    /// The first packet of a picture that begins as those before did: a random access point whose
    /// parameter sets are missing does not. Supplements come and go, so one that is missing is not
    /// noticed.
    pub(super) fn start(&self, front: Front, random: bool, parameters: bool) -> Option<u64> {
        let (sequence, head) = front.0?;
        let usual = self.0[usize::from(random)];
        // Nobody has any parameter sets before the first one.
        if usual.is_none() && random && !parameters {
            return None;
        }
        let least = match usual {
            Some(Head::Delimiter) => Head::Delimiter,
            Some(usual) if random && usual > Head::Supplement => usual,
            _ => Head::Slice,
        };
        (head >= least).then_some(sequence)
    }

    /// Takes in a picture that is there whole.
    pub(super) fn learn(&mut self, front: Front, random: bool) {
        self.0[usize::from(random)] = front.0.map(|(_, head)| head);
    }
}
