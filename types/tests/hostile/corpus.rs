//! Replays the corpus of fuzzers, and mutations of it, with an allocator that counts. Shared by the `hostile` tests of all
//! crates that decode something; each is a binary of its own with one test, since the allocator counts for all threads.
//!
//! `TIDEGATE_MUTATIONS=n` tries as many mutations of each file, `TIDEGATE_SEED=n` others. `TIDEGATE_WRITE_CORPUS=1` writes
//! the files that a change of a format has made into the corpus; what is found by fuzzing is put beside them by hand.

#![allow(clippy::disallowed_methods, reason = "a test that reads a corpus and its own variables")]

use std::{env, fs, path::PathBuf};

use peak_alloc::PeakAlloc;
use types::hostile::{CorpusFile, Replay, Replayed, Target, replay};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// So many mutations of each file are tried.
const MUTATIONS: usize = 500;
const SEED: u64 = 0x7164_6567;

/// A file that this version writes: the target's name, its own, its bytes.
pub(crate) type Seed = (&'static str, &'static str, Vec<u8>);

/// Tries all targets with their corpus, which must hold `seeds`.
#[expect(clippy::disallowed_macros, reason = "shows what it has come to")]
pub(crate) fn try_all(targets: &[(Target, usize)], seeds: Vec<Seed>, command: &str) {
    check_seeds(seeds);
    let variable = |name: &str, default| env::var(name).map_or(default, |text| text.parse().unwrap());
    let mutations = variable("TIDEGATE_MUTATIONS", MUTATIONS as u64) as usize;
    let how = Replay { seed: variable("TIDEGATE_SEED", SEED), mutations, command, peak: &peak };
    for &(target, least_decoded) in targets {
        let corpus = corpus(target.name);
        let Replayed { inputs, decoded, peak } = replay(&target, &corpus, &how);
        println!("{}: {inputs} inputs, {decoded} mutated ones decoded, {peak} bytes at most", target.name);
        // In thousandths: too few would say that mutations do not come through.
        assert!(mutations < 100 || decoded * 1000 >= inputs * least_decoded, "{}: {decoded}", target.name);
    }
}

/// Tries a target with an input that is too large for a corpus, and as right as its writer makes it: it must be decoded.
#[allow(dead_code, reason = "not every crate has one")]
pub(crate) fn try_large(target: &Target, what: &str, bytes: Vec<u8>, command: &str) {
    (target.decode)(&bytes).unwrap_or_else(|error| panic!("{what}: {error}"));
    let how = Replay { seed: SEED, mutations: 0, command, peak: &peak };
    replay(target, &[(what.to_owned(), bytes)], &how);
}

fn folder(target: &str) -> PathBuf {
    // From the crate's directory, in which cargo runs tests: a path of the build may be that of another clone.
    PathBuf::from("../fuzz/corpus").join(target)
}

/// The files of a target, sorted by name.
fn corpus(target: &str) -> Vec<CorpusFile> {
    let folder = folder(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<CorpusFile> = entries
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap())
        })
        .collect();
    files.sort();
    files
}

fn check_seeds(seeds: Vec<Seed>) {
    let writes = env::var("TIDEGATE_WRITE_CORPUS").is_ok();
    for (target, name, bytes) in seeds {
        let path = folder(target).join(name);
        if writes {
            fs::create_dir_all(folder(target)).unwrap();
            fs::write(&path, &bytes).unwrap();
        }
        let found = fs::read(&path).unwrap_or_default();
        assert!(
            found == bytes,
            "{} is not what this version writes: TIDEGATE_WRITE_CORPUS=1 writes it anew",
            path.display()
        );
    }
}

/// The most memory that was taken while `call` ran, besides that from before.
fn peak(call: &mut dyn FnMut()) -> usize {
    ALLOCATOR.reset_peak_usage();
    let before = ALLOCATOR.current_usage();
    call();
    ALLOCATOR.peak_usage().saturating_sub(before)
}
