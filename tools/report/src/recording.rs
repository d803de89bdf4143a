//! Why recordings are not whole, in words.

/// What became of a run's recordings.
#[derive(Debug, Clone, Default)]
pub struct Recorded {
    /// The folder.
    pub dir: String,
    /// The first errors, each with its path.
    pub errors: Vec<String>,
    /// All errors.
    pub errors_total: u64,
    /// Frames that are in files.
    pub frames_written: u64,
    /// Frames that the disk was too slow for, or refused.
    pub frames_dropped: u64,
    /// Whole frames that never got as far as the disk thread.
    pub frames_not_taken: u64,
    /// Somebody was there to receive something.
    pub somebody_received: bool,
}

impl Recorded {
    /// A sentence for each thing that is not as it was asked for.
    pub fn wrongs(self) -> Vec<String> {
        let dir = &self.dir;
        let mut wrongs = self.errors;
        let kept = wrongs.len() as u64;
        if self.errors_total > kept {
            wrongs.push(format!("{} more errors", self.errors_total - kept));
        }
        if self.frames_dropped > 0 {
            wrongs.push(format!("{} frames were not recorded into {dir}", self.frames_dropped));
        }
        if self.frames_not_taken > 0 {
            let count = self.frames_not_taken;
            wrongs.push(format!("{count} frames never got as far as {dir}: too many waited"));
        }
        if wrongs.is_empty() && self.frames_written == 0 && self.somebody_received {
            wrongs.push(format!("nothing came that could be recorded into {dir}"));
        }
        wrongs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_disk_lacks_is_said_and_nothing_else() {
        let whole = Recorded {
            dir: "/r".to_owned(),
            frames_written: 9,
            somebody_received: true,
            ..Recorded::default()
        };
        assert!(whole.clone().wrongs().is_empty());
        let nothing = Recorded { frames_written: 0, ..whole.clone() };
        assert_eq!(nothing.clone().wrongs(), ["nothing came that could be recorded into /r"]);
        assert!(Recorded { somebody_received: false, ..nothing }.wrongs().is_empty());
        let slow = Recorded {
            errors: vec!["/r/x.ivf: full".to_owned()],
            errors_total: 3,
            frames_dropped: 5,
            frames_not_taken: 2,
            ..whole
        };
        let wrongs = [
            "/r/x.ivf: full",
            "2 more errors",
            "5 frames were not recorded into /r",
            "2 frames never got as far as /r: too many waited",
        ];
        assert_eq!(slow.wrongs(), wrongs);
    }
}
