//! The project's own text files, as all rules read them.

use std::{fs, path::Path};

/// A text file of the project.
pub(crate) struct TextFile {
    /// Where it is, from the root, with `/` between the parts.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl TextFile {
    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// The lines with their numbers, from 1 on.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(index, line)| (index + 1, line))
    }
}

/// All text files that people write here, sorted by path.
pub(crate) fn files() -> Vec<TextFile> {
    let mut found = Vec::new();
    // In the root, which is where cargo runs these tests: a path of the build may be that of another clone.
    collect(Path::new("."), "", &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(found.len() > 50, "only {} files found: the walk is broken", found.len());
    found
}

pub(crate) fn rust_files() -> Vec<TextFile> {
    let mut found = files();
    found.retain(TextFile::is_rust);
    found
}

/// The text of one file, by its path from the root.
pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("cannot read {path}: {error}"))
}

/// Fails with all complaints, one a line.
#[track_caller]
pub(crate) fn assert_none(rule: &str, complaints: &[String]) {
    assert!(complaints.is_empty(), "{rule}\n  {}", complaints.join("\n  "));
}

fn collect(folder: &Path, prefix: &str, found: &mut Vec<TextFile>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let path = format!("{prefix}{name}");
        if entry.file_type().unwrap().is_dir() {
            let skipped = name == "target" || (name.starts_with('.') && name != ".ci");
            if !skipped {
                collect(&entry.path(), &format!("{path}/"), found);
            }
        } else if is_text(&path) {
            found.push(TextFile { text: fs::read_to_string(entry.path()).unwrap(), path });
        }
    }
}

fn is_text(path: &str) -> bool {
    let by_ending = [".rs", ".toml", ".md", ".sh"].iter().any(|ending| path.ends_with(ending));
    by_ending || path == "Makefile" || path.starts_with(".ci/")
}
