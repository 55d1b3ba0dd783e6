//! The oracle: counts the words of a text with the standard library alone, so that a wrong idea in the engine cannot
//! hide in it. Words are maximal runs of ASCII letters, lower-cased.

use std::{collections::BTreeMap, fs, io, path::Path};

/// How often each word occurs in a file, or in all files of a directory.
///
/// # Errors
/// What the file system says.
pub fn count(input: &Path) -> io::Result<BTreeMap<String, u64>> {
    let mut counts = BTreeMap::new();
    if input.is_dir() {
        for entry in fs::read_dir(input)? {
            count_text(&fs::read(entry?.path())?, &mut counts);
        }
    } else {
        count_text(&fs::read(input)?, &mut counts);
    }
    Ok(counts)
}

fn count_text(text: &[u8], counts: &mut BTreeMap<String, u64>) {
    let words = text.split(|byte| !byte.is_ascii_alphabetic()).filter(|word| !word.is_empty());
    for word in words {
        let word = word.iter().map(|byte| char::from(byte.to_ascii_lowercase())).collect();
        *counts.entry(word).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_runs_of_ascii_letters() {
        let mut counts = BTreeMap::new();
        count_text("It's 2 o'clock.\r\nIT's caf\u{e9}-time; x".as_bytes(), &mut counts);
        let expected = [("caf", 1), ("clock", 1), ("it", 2), ("o", 1), ("s", 2), ("time", 1), ("x", 1)];
        assert_eq!(counts, expected.map(|(word, count)| (word.to_owned(), count)).into());
    }
}
