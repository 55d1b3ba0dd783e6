//! The watcher: reads the published `part-*` files of a word count again and again, as a stranger would, and holds them
//! to what exactly-once promises at every moment:
//!
//! - for each word the numbers on its lines are exactly 1, 2, .. m, each once, for some m;
//! - m never falls;
//! - a published file never changes and never goes away.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Write as _,
    fs,
    hash::{DefaultHasher, Hasher},
    path::{Path, PathBuf},
};

/// The numbers seen on the lines of one word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Numbers {
    /// All of 1 ..= `whole` were seen.
    whole: u64,
    /// Ranges (first to last) above a gap. Parts of one checkpoint are read in any order.
    beyond: BTreeMap<u64, u64>,
}

impl Numbers {
    /// `false` if the number was seen before.
    fn add(&mut self, number: u64) -> bool {
        if number <= self.whole {
            return false;
        }
        if number == self.whole + 1 {
            self.whole = number;
            if let Some(last) = self.beyond.remove(&(number + 1)) {
                self.whole = last;
            }
            return true;
        }
        let before = self.beyond.range(..=number).next_back().map(|(first, last)| (*first, *last));
        let (first, last) = match before {
            Some((_, last)) if number <= last => return false,
            Some((first, last)) if number == last + 1 => (first, number),
            _ => (number, number),
        };
        let last = self.beyond.remove(&(number + 1)).unwrap_or(last);
        self.beyond.insert(first, last);
        true
    }
}

/// A published file as it was when first read.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    length: u64,
    digest: u64,
}

/// Everything seen so far of one output directory.
#[derive(Clone, Debug)]
pub struct Watch {
    folder: PathBuf,
    parts: BTreeMap<String, Part>,
    words: HashMap<String, Numbers>,
    lines: u64,
}

impl Watch {
    /// A watch over the output directory `folder`, which need not exist yet.
    #[must_use]
    pub fn over(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), parts: BTreeMap::new(), words: HashMap::new(), lines: 0 }
    }

    /// How many files were seen.
    #[must_use]
    pub fn files(&self) -> usize {
        self.parts.len()
    }

    /// How many lines were seen: as many records were committed.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// Reads the files that are new, and sees whether the old ones are still there with their length.
    ///
    /// # Errors
    /// The broken promise, in words.
    pub fn look(&mut self) -> Result<(), String> {
        let listed = settled_listing(&self.folder)?;
        for (name, part) in &self.parts {
            match listed.get(name) {
                None => return Err(format!("the published file {name} is gone")),
                Some(length) if *length != part.length => {
                    return Err(format!(
                        "the published file {name} changed from {} to {length} bytes",
                        part.length
                    ));
                }
                Some(_) => {}
            }
        }
        for name in listed.into_keys().filter(|name| !self.parts.contains_key(name)).collect::<Vec<_>>() {
            self.read(name)?;
        }
        self.no_gaps()
    }

    /// Reads everything from the start, as if nothing were known, and compares it with what was seen before.
    ///
    /// # Errors
    /// The broken promise, in words.
    pub fn look_again(&mut self) -> Result<(), String> {
        let mut fresh = Self::over(&self.folder);
        fresh.look()?;
        if let Some((name, _)) = self.parts.iter().find(|(name, part)| fresh.parts.get(*name) != Some(*part))
        {
            return Err(format!("the published file {name} is not what it was"));
        }
        for (word, seen) in &self.words {
            let now = fresh.words.get(word).map_or(0, |numbers| numbers.whole);
            if now < seen.whole {
                return Err(format!("the count of {word:?} fell from {} to {now}", seen.whole));
            }
        }
        *self = fresh;
        Ok(())
    }

    /// Compares what was seen with the right counts.
    ///
    /// # Errors
    /// The first words that differ.
    pub fn matches(&self, expected: &BTreeMap<String, u64>) -> Result<(), String> {
        let mut differences = String::new();
        let words: BTreeSet<_> = self.words.keys().chain(expected.keys()).collect();
        let seen = |word: &String| self.words.get(word).map_or(0, |numbers| numbers.whole);
        let right = |word: &String| expected.get(word).copied().unwrap_or_default();
        let wrong: Vec<_> = words.into_iter().filter(|word| seen(word) != right(word)).collect();
        for word in wrong.iter().take(5) {
            let _ = write!(differences, "; {word:?}: {} committed, {} in the input", seen(word), right(word));
        }
        if wrong.is_empty() { Ok(()) } else { Err(format!("{} words are wrong{differences}", wrong.len())) }
    }

    fn read(&mut self, name: String) -> Result<(), String> {
        let text =
            fs::read(self.folder.join(&name)).map_err(|error| format!("cannot read {name}: {error}"))?;
        for (index, line) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
            let place = || format!("line {} of {name}", index + 1);
            let (word, number) = parse(line).ok_or_else(|| format!("{} is not word<TAB>number", place()))?;
            let new = match self.words.get_mut(word) {
                Some(numbers) => numbers.add(number),
                None => self.words.entry(word.to_owned()).or_default().add(number),
            };
            if !new {
                return Err(format!(
                    "{word:?} has the number {number} twice, the second time on {}",
                    place()
                ));
            }
            self.lines += 1;
        }
        let mut digest = DefaultHasher::new();
        digest.write(&text);
        self.parts.insert(name, Part { length: text.len() as u64, digest: digest.finish() });
        Ok(())
    }

    fn no_gaps(&self) -> Result<(), String> {
        let gap = self.words.iter().find(|(_, numbers)| !numbers.beyond.is_empty());
        gap.map_or(Ok(()), |(word, numbers)| {
            let next = numbers.beyond.keys().next().copied().unwrap_or_default();
            Err(format!("{word:?} has the number {next} but not {}", numbers.whole + 1))
        })
    }
}

/// A line with its line end.
fn parse(line: &[u8]) -> Option<(&str, u64)> {
    let (word, number) = std::str::from_utf8(line).ok()?.strip_suffix('\n')?.split_once('\t')?;
    let lower = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase());
    let number = number.parse().ok().filter(|number| *number > 0)?;
    lower.then_some((word, number))
}

/// The published files with their lengths, from a directory that changes while it is read.
///
/// A listing may hold a file and miss another that was published before it. Two equal listings in a row hold all files
/// published before any file in them: those were there when the second began.
fn settled_listing(folder: &Path) -> Result<BTreeMap<String, u64>, String> {
    let mut last = listing(folder)?;
    loop {
        let next = listing(folder)?;
        if next == last {
            return Ok(next);
        }
        last = next;
    }
}

fn listing(folder: &Path) -> Result<BTreeMap<String, u64>, String> {
    if !folder.exists() {
        return Ok(BTreeMap::new());
    }
    let failed = |error| format!("cannot list {}: {error}", folder.display());
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("part-") {
            found.insert(name, entry.metadata().map_err(failed)?.len());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
