//! The word count that a programmer would write by hand for two cores, with nothing of an engine: two threads that each
//! read every other file, exchange words by their hash in batches of 1,024, count what they own, and write one line
//! `word<TAB>k` for every word. No checkpoints, no recovery. `hand_word_count DIR OUT`.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    clippy::disallowed_types,
    reason = "it is measured against the engine, so it uses nothing of it"
)]

use std::{
    collections::HashMap,
    fs::File,
    hash::{BuildHasher, BuildHasherDefault, Hasher},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    thread,
    time::Instant,
};

use compact_str::CompactString;
use xxhash_rust::xxh3::Xxh3Default;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BATCH: usize = 1024;

/// xxh3, as the engine hashes.
#[derive(Default)]
struct Hash(Xxh3Default);

impl Hasher for Hash {
    fn finish(&self) -> u64 {
        self.0.digest()
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
}

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (Some(text), Some(out)) = (args.next(), args.next()) else {
        eprintln!("usage: hand_word_count DIR OUT");
        return ExitCode::from(2);
    };
    let started = Instant::now();
    match count(Path::new(&text), Path::new(&out)) {
        Ok(words) => {
            let seconds = started.elapsed().as_secs_f64();
            println!("{words} records in {seconds:.2} s, {:.0} records/s", words as f64 / seconds);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(5)
        }
    }
}

fn count(text: &Path, out: &Path) -> io::Result<u64> {
    std::fs::create_dir_all(out)?;
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(text)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    files.sort();
    let (files, (to_first, to_second)) = (&files, (sync_channel(4), sync_channel(4)));
    thread::scope(|scope| {
        let first = Half::new(0, to_second.0, to_first.1, &out.join("part-0"))?;
        let second = Half::new(1, to_first.0, to_second.1, &out.join("part-1"))?;
        let other = scope.spawn(move || second.run(files));
        let died = |_| io::Error::other("a thread died");
        Ok(first.run(files)? + other.join().map_err(died)??)
    })
}

/// One of the two threads: reads every other file, counts the words that it owns.
struct Half {
    own: usize,
    other: SyncSender<Vec<CompactString>>,
    inbox: Receiver<Vec<CompactString>>,
    counts: HashMap<CompactString, u64, BuildHasherDefault<Hash>>,
    out: BufWriter<File>,
    words: u64,
}

impl Half {
    fn new(
        own: usize,
        other: SyncSender<Vec<CompactString>>,
        inbox: Receiver<Vec<CompactString>>,
        file: &Path,
    ) -> io::Result<Self> {
        let out = BufWriter::with_capacity(256 << 10, File::create(file)?);
        Ok(Self { own, other, inbox, counts: HashMap::default(), out, words: 0 })
    }

    fn run(mut self, files: &[PathBuf]) -> io::Result<u64> {
        let hash = BuildHasherDefault::<Hash>::default();
        let mut batches = [Vec::with_capacity(BATCH), Vec::with_capacity(BATCH)];
        for file in files.iter().skip(self.own).step_by(2) {
            let text = std::fs::read_to_string(file)?;
            for run in text.split(|c: char| !c.is_ascii_alphabetic()).filter(|run| !run.is_empty()) {
                let mut word = CompactString::new(run);
                word.make_ascii_lowercase();
                let target = (hash.hash_one(word.as_bytes()) >> 32) as usize % 2;
                batches[target].push(word);
                if batches[target].len() == BATCH {
                    let batch = std::mem::replace(&mut batches[target], Vec::with_capacity(BATCH));
                    self.deliver(target, batch)?;
                }
            }
        }
        for (target, batch) in batches.into_iter().enumerate() {
            self.deliver(target, batch)?;
        }
        let Self { other, inbox, mut counts, mut out, mut words, .. } = self;
        // The other thread's last batch has come when it drops its end of the channel.
        drop(other);
        for batch in inbox {
            words += write(batch, &mut counts, &mut out)?;
        }
        out.flush()?;
        out.get_ref().sync_all()?;
        Ok(words)
    }

    /// Counts an own batch, or sends it to the other thread; counts what came in while there is no room there.
    fn deliver(&mut self, target: usize, mut batch: Vec<CompactString>) -> io::Result<()> {
        if target == self.own {
            self.words += write(batch, &mut self.counts, &mut self.out)?;
            return Ok(());
        }
        loop {
            while let Ok(came) = self.inbox.try_recv() {
                self.words += write(came, &mut self.counts, &mut self.out)?;
            }
            match self.other.try_send(batch) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Full(back)) => batch = back,
                Err(TrySendError::Disconnected(_)) => return Err(io::Error::other("the other thread died")),
            }
            thread::yield_now();
        }
    }
}

/// Counts the words of a batch, and writes a line for each.
fn write(
    batch: Vec<CompactString>,
    counts: &mut HashMap<CompactString, u64, BuildHasherDefault<Hash>>,
    out: &mut impl Write,
) -> io::Result<u64> {
    let words = batch.len() as u64;
    for word in batch {
        let count = match counts.get_mut(&word) {
            Some(count) => count,
            None => counts.entry(word.clone()).or_insert(0),
        };
        *count += 1;
        writeln!(out, "{word}\t{count}")?;
    }
    Ok(words)
}
