//! Bytes from a disk are hostile: what every decoder of them is held to, and the mutations with which it is tried.
//!
//! A [`Target`] is one decoder. Given any bytes it never panics, fails with `Corrupt` and nothing else, and takes at most
//! four times their length and 1 MiB of memory ([`Target::free`] says where it is more). Two callers: the fuzzers in `fuzz/`, which need a nightly compiler, and the
//! tests `hostile` of each crate, which replay the corpus in `fuzz/corpus` and seeded mutations of it with [`replay`].
//! What checksums would turn away is tried with its checksums made right, too: what is behind them matters most.

use std::{
    fmt::Write,
    panic::{AssertUnwindSafe, catch_unwind},
};

use crate::{ErrorKind, Result};

mod mutation;
mod targets;

pub use mutation::{Mutations, Random};
pub use targets::{KEY, SHAPE, SHAPED_VALUE, VALUE, seeds};

/// What a decoder may take whatever the length of its input, in bytes.
pub const FREE_MEMORY: usize = 1 << 20;
/// What it may take for each byte of its input.
const MEMORY_RATIO: usize = 4;

/// A decoder.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, which is that of its folder in `fuzz/corpus`.
    pub name: &'static str,
    /// Decodes all that can be decoded.
    pub decode: fn(&[u8]) -> Result<()>,
    /// Makes the checksums right, as far as the bytes are such a file; leaves all else as it is.
    pub repair: fn(&mut [u8]),
    /// Longer inputs are not tried.
    pub longest: usize,
    /// What it may take besides four times the length of its input, in bytes.
    pub free: usize,
}

impl Target {
    /// Decodes `bytes` as they are, and with checksums made right.
    ///
    /// # Panics
    /// If the decoder does, or fails with anything but `Corrupt` or `IncompatibleState`.
    pub fn fuzz(&self, bytes: &[u8]) {
        if bytes.len() > self.longest {
            return;
        }
        self.attempt(bytes);
        let mut repaired = bytes.to_vec();
        (self.repair)(&mut repaired);
        self.attempt(&repaired);
    }

    /// Whether they were decoded.
    fn attempt(&self, bytes: &[u8]) -> bool {
        match (self.decode)(bytes) {
            Ok(()) => true,
            Err(error) => {
                // What a newer version may have written is not damaged: only nobody here can read it.
                let refused = [ErrorKind::Corrupt, ErrorKind::IncompatibleState];
                assert!(refused.contains(&error.kind()), "{}: {:?}, {error}", self.name, error.kind());
                assert!(error.message().len() < 2000, "{}: a message without end", self.name);
                false
            }
        }
    }
}

/// A file of a corpus: its name and its bytes.
pub type CorpusFile = (String, Vec<u8>);

/// How a corpus is replayed.
#[derive(Clone, Copy)]
pub struct Replay<'a> {
    /// The seed of the mutations.
    pub seed: u64,
    /// How many mutations of each file are tried.
    pub mutations: usize,
    /// The command that replays, without the variables.
    pub command: &'a str,
    /// Calls, and tells how many bytes of memory were taken meanwhile at most, besides those before.
    pub peak: &'a dyn Fn(&mut dyn FnMut()) -> usize,
}

/// What a replay has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Inputs tried.
    pub inputs: usize,
    /// Mutated inputs that were decoded all the same: they came through all the checks.
    pub decoded: usize,
    /// The most memory that one input took, in bytes.
    pub peak: usize,
}

/// Tries `target` with each file of `corpus` and with mutations of it.
///
/// # Panics
/// If the decoder breaks its contract, with the input and the command that replays it.
pub fn replay(target: &Target, corpus: &[CorpusFile], replay: &Replay<'_>) -> Replayed {
    assert!(!corpus.is_empty(), "{}: there is no corpus", target.name);
    let mut replayed = Replayed::default();
    for (number, (name, bytes)) in corpus.iter().enumerate() {
        let mut mutations = Mutations::new(replay.seed ^ number as u64, corpus, target.longest);
        for round in 0..=replay.mutations {
            let mut input = bytes.clone();
            if round > 0 {
                mutations.mutate(&mut input);
            }
            // As it is first; then what only its checksums kept from being read.
            for repaired in [false, true] {
                if repaired {
                    (target.repair)(&mut input);
                }
                let what = format!("{}, {name}, round {round}, repaired: {repaired}", target.name);
                let decoded = attempt(target, &input, &what, replay, &mut replayed);
                replayed.decoded += usize::from(decoded && round > 0);
            }
        }
    }
    replayed
}

fn attempt(target: &Target, input: &[u8], what: &str, replay: &Replay<'_>, replayed: &mut Replayed) -> bool {
    let mut decoded = Ok(false);
    let mut call = || decoded = catch_unwind(AssertUnwindSafe(|| target.attempt(input)));
    let peak = (replay.peak)(&mut call);
    let bound = MEMORY_RATIO * input.len() + target.free;
    let failure = match &decoded {
        Err(_) => Some("the decoder panicked, see above".to_owned()),
        Ok(_) if peak > bound => {
            Some(format!("{} bytes of input took {peak} bytes of memory, more than {bound}", input.len()))
        }
        Ok(_) => None,
    };
    if let Some(failure) = failure {
        let (seed, mutations, command) = (replay.seed, replay.mutations, replay.command);
        panic!(
            "{what}: {failure}\nreplay: TIDEGATE_SEED={seed} TIDEGATE_MUTATIONS={mutations} {command}\ninput: {}",
            hex(input)
        );
    }
    replayed.inputs += 1;
    replayed.peak = replayed.peak.max(peak);
    decoded.unwrap_or(false)
}

/// The bytes, for a file of the corpus: `xxd -r -p`.
fn hex(bytes: &[u8]) -> String {
    const SHOWN: usize = 8 << 10;
    let mut text = String::new();
    for byte in &bytes[..bytes.len().min(SHOWN)] {
        let _ = write!(text, "{byte:02x}");
    }
    if bytes.len() > SHOWN {
        let _ = write!(text, "... {} bytes in all", bytes.len());
    }
    text
}
