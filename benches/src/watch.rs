//! Watches a directory from outside, by listing it over and over: how many bytes its files have at the most, and how many
//! were written into it in all. What is there for less than a moment may be missed; a checkpoint's files stay for several
//! checkpoints.
#![expect(clippy::disallowed_methods, reason = "it looks at the disk from outside of the job")]

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// Between two listings.
const PAUSE: Duration = Duration::from_millis(2);
/// Where files are written under other names, before they get theirs.
const STAGED: &str = "staging~";

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The greatest number of bytes in all files at once.
    pub peak: u64,
    /// The greatest length of each file that had its name.
    files: BTreeMap<PathBuf, u64>,
    /// How many times the directory was listed.
    pub listings: u64,
}

impl Seen {
    /// The bytes of all files that were ever there.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.files.values().sum()
    }

    fn note(&mut self, listing: Vec<(PathBuf, u64)>) {
        self.listings += 1;
        self.peak = self.peak.max(listing.iter().map(|(_, len)| len).sum());
        for (path, len) in listing.into_iter().filter(|(path, _)| !is_staged(path)) {
            let known = self.files.entry(path).or_default();
            *known = len.max(*known);
        }
    }
}

fn is_staged(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == STAGED)
}

/// Watches until it is dropped.
pub struct Watch {
    seen: Arc<Mutex<Seen>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Begins.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn begin(directory: &Path) -> io::Result<Self> {
        let (seen, over) = (Arc::new(Mutex::new(Seen::default())), Arc::new(AtomicBool::new(false)));
        let (directory, noted, ends) = (directory.to_owned(), Arc::clone(&seen), Arc::clone(&over));
        let watch = move || {
            while !ends.load(Ordering::Relaxed) {
                let listing = list(&directory);
                lock(&noted).note(listing);
                thread::sleep(PAUSE);
            }
        };
        let thread = thread::Builder::new().name("watch".to_owned()).spawn(watch)?;
        Ok(Self { seen, over, thread: Some(thread) })
    }

    /// What was seen so far.
    #[must_use]
    pub fn seen(&self) -> Seen {
        lock(&self.seen).clone()
    }

    /// Forgets how much there was at once.
    pub fn forget_peak(&self) {
        lock(&self.seen).peak = 0;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has ended, one way or the other.
            let _ended = thread.join();
        }
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All files below a directory, with their lengths. What goes away meanwhile is left out.
#[must_use]
pub fn list(directory: &Path) -> Vec<(PathBuf, u64)> {
    let mut files = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => directories.push(entry.path()),
                Ok(metadata) => files.push((entry.path(), metadata.len())),
                Err(_) => {}
            }
        }
    }
    files
}

/// The bytes of all files below a directory.
#[must_use]
pub fn bytes_in(directory: &Path) -> u64 {
    list(directory).iter().map(|(_, len)| len).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_counts_all_that_is_there_at_once_and_what_was_written_each_file_once() {
        let mut seen = Seen::default();
        let file = |name: &str, len| (PathBuf::from(name), len);
        seen.note(vec![file("a", 10), file("staging~/b", 5)]);
        seen.note(vec![file("a", 10), file("b", 7)]);
        seen.note(vec![file("b", 7), file("c", 1)]);
        assert_eq!((seen.peak, seen.written(), seen.listings), (17, 18, 3));
    }
}
