//! The watcher of a job whose output is a set of lines, all different and known before: each line that is published is one
//! of them, and none comes twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

/// Everything seen so far of one output directory.
#[derive(Clone, Debug)]
pub struct Lines {
    folder: PathBuf,
    missing: BTreeSet<String>,
    seen: BTreeSet<String>,
    files: BTreeMap<PathBuf, u64>,
}

impl Lines {
    /// A watch over the output directory `folder`, which need not exist yet.
    #[must_use]
    pub fn over(folder: &Path, expected: BTreeSet<String>) -> Self {
        Self { folder: folder.to_owned(), missing: expected, seen: BTreeSet::new(), files: BTreeMap::new() }
    }

    /// How many lines have not come yet.
    #[must_use]
    pub fn missing(&self) -> usize {
        self.missing.len()
    }

    /// How many have.
    #[must_use]
    pub fn seen(&self) -> usize {
        self.seen.len()
    }

    /// One that has not come yet.
    #[must_use]
    pub fn first_missing(&self) -> Option<&str> {
        self.missing.first().map(String::as_str)
    }

    /// Reads the files that are new, and sees whether the old ones are still as long as they were.
    ///
    /// # Errors
    /// The broken promise, in words.
    pub fn look(&mut self) -> Result<(), String> {
        let listed = self.listed().map_err(|error| format!("{}: {error}", self.folder.display()))?;
        if let Some((path, length)) =
            self.files.iter().find(|(path, length)| listed.get(*path) != Some(length))
        {
            return Err(format!("{} of {length} bytes has changed or is gone", path.display()));
        }
        for (path, length) in listed {
            if self.files.insert(path.clone(), length).is_none() {
                let text =
                    fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
                text.lines().try_for_each(|line| self.take(line, &path))?;
            }
        }
        Ok(())
    }

    fn take(&mut self, line: &str, path: &Path) -> Result<(), String> {
        if let Some(line) = self.missing.take(line) {
            self.seen.insert(line);
            return Ok(());
        }
        let place = path.display();
        Err(match self.seen.contains(line) {
            true => format!("{line:?} comes twice, the second time in {place}"),
            false => format!("{line:?} in {place} is not what was expected; {}", self.like(line)),
        })
    }

    /// The expected line that begins like this one.
    fn like(&self, line: &str) -> String {
        let begin: String = line.split_inclusive(' ').take(3).collect();
        let near = self.missing.range(begin.clone()..).next().filter(|near| near.starts_with(&begin));
        near.map_or_else(|| "nothing like it was".to_owned(), |near| format!("that was {near:?}"))
    }

    /// The published files with their lengths.
    fn listed(&self) -> io::Result<BTreeMap<PathBuf, u64>> {
        let mut listed = BTreeMap::new();
        if !self.folder.exists() {
            return Ok(listed);
        }
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with("part-") {
                listed.insert(entry.path(), entry.metadata()?.len());
            }
        }
        Ok(listed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_comes_once_and_is_one_of_them() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let write =
            |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("it is written");
        let expected = ["event 1 2 a", "event 1 3 b", "held 7"].map(str::to_owned);
        let mut lines = Lines::over(folder.path(), expected.into());
        write("part-1", "event 1 2 a\nheld 7\n");
        write(".pending", "held 7\n");
        assert_eq!(lines.look(), Ok(()));
        assert_eq!((lines.seen(), lines.missing(), lines.first_missing()), (2, 1, Some("event 1 3 b")));
        let told = |text: &str| {
            write("part-2", text);
            lines.clone().look().expect_err("a promise is broken")
        };
        assert!(told("held 7\n").contains("comes twice"));
        assert!(told("event 1 3 c\n").contains("that was \"event 1 3 b\""));
        assert!(told("held 8\n").contains("nothing like it"));
        write("part-1", "held 7\n");
        assert!(told("").contains("has changed"));
    }
}
