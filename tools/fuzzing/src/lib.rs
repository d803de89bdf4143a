//! What is fuzzed, and what must hold whatever comes.
//!
//! A [`Target`] takes bytes, does with them what a network, a server, a participant, a file or a user
//! could make of them, and panics if what comes out of it is wrong: not only if something panicked by
//! itself, but also if counters don't balance, if a connection that others are on is lost, or if it took
//! more memory than its input allows. Two things drive the same targets:
//!
//! - `cargo test --test fuzz` replays each one's corpus (`fuzz/corpus/NAME`), then mutates it so many
//!   times, by a seed (`stampede_testing::mutate`);
//! - `fuzz/` is a libFuzzer binary of each, guided by coverage.
//!
//! No crate but `fuzz/` and tests depends on this one.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "it is for tests, and says by a panic what is wrong"
)]

mod bytes;
mod files;
mod payloads;
mod peer;
mod publisher;
mod reports;
mod sdp;
mod sfu;
mod signalling;
mod subscriber;
mod values;

/// One thing that is fuzzed.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name, that of its corpus, and of its binary in `fuzz/`.
    pub name: &'static str,
    /// What to do with an input.
    pub run: fn(&[u8]),
    /// Inputs to begin from, besides those of the corpus.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Pieces that mean something to it.
    pub words: &'static [&'static [u8]],
    /// Most memory that it may take at a time, in bytes: so many, and so many for each byte of input.
    pub memory: [u64; 2],
    /// Longest input that it makes sense for.
    pub input_bytes_max: usize,
    /// How many mutated inputs `cargo test` tries: as many as take about as long as those of others.
    pub tries: u32,
}

/// All of them.
pub static TARGETS: [Target; 13] = [
    Target {
        name: "client_datagrams",
        run: subscriber::datagrams,
        seeds: subscriber::datagram_seeds,
        words: &[],
        memory: [8 << 20, 64],
        input_bytes_max: 4_096,
        tries: 1_800,
    },
    Target {
        name: "client_media",
        run: subscriber::media,
        seeds: subscriber::media_seeds,
        words: &[],
        memory: [8 << 20, 256],
        input_bytes_max: 16_384,
        tries: 1_800,
    },
    Target {
        name: "client_publishing",
        run: publisher::feedback,
        seeds: publisher::seeds,
        words: &[],
        memory: [16 << 20, 256],
        input_bytes_max: 4_096,
        tries: 720,
    },
    Target {
        name: "client_sdp",
        run: sdp::client,
        seeds: sdp::client_seeds,
        words: sdp::WORDS,
        memory: [4 << 20, 128],
        input_bytes_max: 32_768,
        tries: 1_800,
    },
    Target {
        name: "sdp",
        run: sdp::description,
        seeds: sdp::seeds,
        words: sdp::WORDS,
        memory: [64 << 10, 128],
        input_bytes_max: 65_536,
        tries: 36_000,
    },
    Target {
        name: "payloads",
        run: payloads::run,
        seeds: payloads::seeds,
        words: &[],
        memory: [1 << 20, 128],
        input_bytes_max: 32_768,
        tries: 36_000,
    },
    Target {
        name: "files",
        run: files::run,
        seeds: files::seeds,
        words: &[],
        memory: [1 << 20, 64],
        input_bytes_max: 1 << 20,
        tries: 18_000,
    },
    Target {
        name: "signal_responses",
        run: signalling::run,
        seeds: signalling::seeds,
        words: &[],
        memory: [1 << 20, 400],
        input_bytes_max: 1 << 20,
        tries: 36_000,
    },
    Target {
        name: "sfu_datagrams",
        run: sfu::datagrams,
        seeds: sfu::datagram_seeds,
        words: &[],
        memory: [16 << 20, 64],
        input_bytes_max: 4_096,
        tries: 720,
    },
    Target {
        name: "sfu_sdp",
        run: sfu::sdp,
        seeds: sfu::sdp_seeds,
        words: sdp::WORDS,
        memory: [16 << 20, 256],
        input_bytes_max: 32_768,
        tries: 720,
    },
    Target {
        name: "signal_requests",
        run: sfu::requests,
        seeds: sfu::request_seeds,
        words: &[],
        // A worker's queue of commands takes 13 MB.
        memory: [20 << 20, 1_000],
        input_bytes_max: 65_536,
        tries: 2_000,
    },
    Target {
        name: "reports",
        run: reports::run,
        seeds: reports::seeds,
        words: reports::WORDS,
        memory: [16 << 20, 400],
        input_bytes_max: 1 << 20,
        tries: 480,
    },
    Target {
        name: "values",
        run: values::run,
        seeds: values::seeds,
        words: values::WORDS,
        // A threshold is held against the table of all keys.
        memory: [2 << 20, 1_000],
        input_bytes_max: 512,
        tries: 4_000,
    },
];

impl Target {
    /// The target of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        TARGETS.iter().find(|target| target.name == name)
    }

    /// Does it, and counts what memory it takes.
    ///
    /// # Panics
    /// If something is wrong: that is what it is for.
    pub fn check(&self, input: &[u8]) {
        let input = &input[..input.len().min(self.input_bytes_max)];
        let take = || allocation_counter::measure(|| (self.run)(input)).bytes_max;
        let [base, each] = self.memory;
        let most = base + each * input.len() as u64;
        let mut taken = take();
        if taken > most {
            // What is made once for all, such as a table of keys, is not this input's.
            taken = take();
        }
        assert!(taken <= most, "{} took {taken} bytes for {} of input", self.name, input.len());
    }
}
