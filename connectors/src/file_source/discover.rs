//! What a file source reads: a file, all files under a directory, or what a pattern matches. All calls block.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
};

use env::{FileKind, Files};
use glob::{MatchOptions, Pattern};
use types::{Error, Result};

use crate::place;

/// A file that was found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FoundFile {
    pub(super) path: String,
    pub(super) len: u64,
}

/// `*` does not cross a `/`, and nothing but an explicit dot matches a leading one.
const MATCHING: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

/// Whether a path is to be read as a pattern, if nothing of that very name exists.
fn is_pattern(path: &str) -> bool {
    path.contains(['*', '?', '['])
}

/// Checks a path as far as that can be done without looking at the disk.
pub(super) fn check(path: &str) -> Result<()> {
    if path.is_empty() {
        return Err(Error::invalid_job("the input has an empty name: give a file, a directory or a pattern"));
    }
    if is_pattern(path) {
        pattern(path)?;
    }
    Ok(())
}

fn pattern(path: &str) -> Result<Pattern> {
    Pattern::new(path).map_err(|error| {
        Error::invalid_job(format!("input pattern {path} is wrong: {error}")).with_source(error)
    })
}

/// The directory above the first part in which a pattern stands: only what is below it can match.
fn fixed(pattern: &str) -> &str {
    let len = pattern.split_inclusive('/').take_while(|part| !is_pattern(part)).map(str::len).sum();
    &pattern[..len]
}

/// Where `path` really is: the same however it is written.
///
/// # Errors
/// `BadInput` if it is not UTF-8, or as the operating system says.
pub(super) fn place(files: &dyn Files, path: &str) -> Result<String> {
    let (base, real) = base(files, path)?;
    let real = if base.len() < path.len() { real.join(&path[base.len()..]) } else { real };
    text(&real).map(ToOwned::to_owned)
}

/// The part of `path` that names a file or directory, all of it but for a pattern, and where that really is.
fn base<'a>(files: &dyn Files, path: &'a str) -> Result<(&'a str, PathBuf)> {
    let named = Path::new(path);
    let exists = files.metadata(named).map_err(|error| failed(named, error))?.is_some();
    let base = if is_pattern(path) && !exists { fixed(path) } else { path };
    let real = place::real(files, Path::new(base)).map_err(|error| failed(named, error))?;
    Ok((base, real))
}

/// The path of a file that was found under the place `from`, now that the place is `to`.
///
/// # Errors
/// `BadInput` if it was not found there, or `to` is a pattern that does not match it.
pub(super) fn moved(path: &str, from: &str, to: &str) -> Result<String> {
    let below = |from: &str, to: &str| below(path, from, Path::new(to))?.to_str().map(ToOwned::to_owned);
    if is_pattern(to)
        && !is_pattern(from)
        && let Ok(rest) = Path::new(path).strip_prefix(from)
    {
        // A file that was given by its own name is looked for by its own name.
        let rest =
            if rest.as_os_str().is_empty() { Path::new(path).file_name().map(Path::new) } else { Some(rest) };
        let moved = rest.and_then(|rest| Path::new(fixed(to)).join(rest).to_str().map(ToOwned::to_owned));
        let matched = moved.filter(|moved| matches(to, moved));
        return matched.ok_or_else(|| {
            Error::bad_input(format!(
                "input file {path} was read below {from}, and {to} does not match what would be its place now: give the \
                 directory, or a pattern that does"
            ))
        });
    }
    let moved = below(from, to).or_else(|| below(fixed(from), fixed(to)));
    moved.ok_or_else(|| {
        Error::bad_input(format!(
            "input file {path} is not below {from}, so nobody can tell where below {to} it is now"
        ))
    })
}

/// Whether [`find`] takes files at `path` or below it, if `place` is a file or a directory. What a pattern matches hangs on
/// the names of the files.
pub(super) fn reads(place: &str, path: &Path) -> bool {
    let below = path.strip_prefix(place);
    below.is_ok_and(|below| !below.iter().any(|part| part.to_str().is_some_and(is_hidden)))
}

/// Whether a file or directory of this name is passed over.
fn is_hidden(name: &str) -> bool {
    name.starts_with(['.', '_'])
}

fn matches(pattern: &str, path: &str) -> bool {
    Pattern::new(pattern).is_ok_and(|pattern| pattern.matches_with(path, MATCHING))
}

/// What is to `to` as `path` is to `from`.
fn below(path: &str, from: &str, to: &Path) -> Option<PathBuf> {
    let rest = Path::new(path).strip_prefix(from).ok()?;
    Some(if rest.as_os_str().is_empty() { to.to_owned() } else { to.join(rest) })
}

/// The files that `path` stands for, sorted, under their real names: they are the same wherever the job is started.
///
/// # Errors
/// `BadInput` if there are none, `Unavailable` if one may not be looked at.
pub(super) fn find(files: &dyn Files, path: &str) -> Result<Vec<FoundFile>> {
    let mut search = Search { files, entered: BTreeSet::new(), found: BTreeSet::new() };
    if search.kind(Path::new(path))?.is_some() {
        search.take(Path::new(path))?;
        if search.found.is_empty() {
            return Err(Error::bad_input(format!(
                "input directory {path} holds no file (names that begin with . or _ are not read): check the path"
            )));
        }
    } else if is_pattern(path) {
        search.match_all(path)?;
        if search.found.is_empty() {
            return Err(Error::bad_input(format!("input pattern {path} matches no file: check it")));
        }
    } else {
        return Err(Error::bad_input(format!("input file {path} does not exist: check the path")));
    }
    let (base, real_base) = base(files, path)?;
    let real = |file: FoundFile| match below(&file.path, base, &real_base) {
        Some(real) => Ok(FoundFile { path: text(&real)?.to_owned(), ..file }),
        None => Ok(file),
    };
    search.found.into_iter().map(real).collect()
}

/// A pattern, and how many directories deep it can match.
struct Matcher {
    pattern: Pattern,
    depth: usize,
}

struct Search<'a> {
    files: &'a dyn Files,
    /// The directories that were entered, under their true names: symbolic links may form a circle.
    entered: BTreeSet<PathBuf>,
    found: BTreeSet<FoundFile>,
}

impl Search<'_> {
    fn kind(&self, path: &Path) -> Result<Option<FileKind>> {
        let meta = self.files.metadata(path).map_err(|error| failed(path, error))?;
        Ok(meta.map(|meta| meta.kind))
    }

    /// Takes a file, or all files under a directory.
    fn take(&mut self, path: &Path) -> Result<()> {
        let Some(meta) = self.files.metadata(path).map_err(|error| failed(path, error))? else {
            return Ok(());
        };
        match meta.kind {
            FileKind::Dir => {
                for entry in self.enter(path)? {
                    let hidden = name(&entry).is_some_and(is_hidden);
                    if !hidden {
                        self.take(&entry)?;
                    }
                }
                Ok(())
            }
            FileKind::File => {
                let path = text(path)?.to_owned();
                self.found.insert(FoundFile { path, len: meta.len });
                Ok(())
            }
            FileKind::Other => Err(Error::bad_input(format!(
                "input {} is neither a file nor a directory: only files can be read again after a failure",
                path.display()
            ))),
        }
    }

    /// Takes whatever matches a pattern.
    fn match_all(&mut self, path: &str) -> Result<()> {
        let fixed = fixed(path);
        let depth = if path.contains("**") { usize::MAX } else { path[fixed.len()..].split('/').count() };
        let matcher = Matcher { pattern: pattern(path)?, depth };
        let top = if fixed.is_empty() { "." } else { fixed };
        self.match_under(Path::new(top), Path::new(fixed), &matcher, 1)
    }

    /// Takes what matches in and below a directory; `shown` is its name as the pattern has it.
    fn match_under(&mut self, dir: &Path, shown: &Path, matcher: &Matcher, depth: usize) -> Result<()> {
        if depth > matcher.depth || self.kind(dir)? != Some(FileKind::Dir) {
            return Ok(());
        }
        for entry in self.enter(dir)? {
            let Some(entry_name) = entry.file_name() else { continue };
            let shown = shown.join(entry_name);
            if shown.to_str().is_some_and(|shown| matcher.pattern.matches_with(shown, MATCHING)) {
                self.take(&shown)?;
            } else {
                self.match_under(&entry, &shown, matcher, depth + 1)?;
            }
        }
        Ok(())
    }

    /// The entries of a directory; none if it was entered before.
    fn enter(&mut self, dir: &Path) -> Result<Vec<PathBuf>> {
        let read =
            |dir: &Path| -> io::Result<_> { Ok((self.files.canonical(dir)?, self.files.read_dir(dir)?)) };
        let (true_name, entries) = read(dir).map_err(|error| failed(dir, error))?;
        Ok(if self.entered.insert(true_name) { entries } else { Vec::new() })
    }
}

fn name(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}

fn text(path: &Path) -> Result<&str> {
    path.to_str()
        .ok_or_else(|| Error::bad_input(format!("the name of input file {path:?} is not UTF-8: rename it")))
}

fn failed(path: &Path, error: io::Error) -> Error {
    Error::io(format!("cannot look for input at {}", path.display()), error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_where_the_same_way_leads_from_the_new_place() {
        for (path, from, to, expected) in [
            ("/a/x.txt", "/a", "/b", Some("/b/x.txt")),
            ("/a/x.txt", "/a/x.txt", "/b/y.txt", Some("/b/y.txt")),
            ("/a/c/x.txt", "/a/*/*.txt", "/b/*/*.txt", Some("/b/c/x.txt")),
            ("/a/x.txt", "/a/*.txt", "/b", Some("/b/x.txt")),
            ("/a[1]/x.txt", "/a[1]", "/b[1]", Some("/b[1]/x.txt")),
            ("/a/x.txt", "/a", "/b/*.txt", Some("/b/x.txt")),
            ("/a/c/x.txt", "/a", "/b/**/*.txt", Some("/b/c/x.txt")),
            ("/a/x.txt", "/a/x.txt", "/b/*.txt", Some("/b/x.txt")),
            ("/a/c/x.txt", "/a", "/b/*.txt", None),
            ("/a/x.csv", "/a", "/b/*.txt", None),
            ("/c/x.txt", "/a", "/b", None),
        ] {
            let found = moved(path, from, to);
            assert_eq!(found.as_deref().ok(), expected, "{path}: {from} to {to}");
            if let Err(error) = found {
                let text = error.to_string();
                assert!(text.contains(path) && text.contains(from) && text.contains(to), "{text}");
                assert!(!text.contains(&format!("{to}/")), "{text}");
            }
        }
    }
}
