//! The text that the killed jobs count: a few words very often, many words rarely, and everything around them that a
//! splitter of words can get wrong.

use std::{fs, io, path::Path};

use crate::Seeded;

/// How many different words there are.
const VOCABULARY: u64 = 5_000;
/// What stands between two words. Letters outside of ASCII end a word.
const SEPARATORS: [&str; 12] = [" ", " ", " ", " ", ", ", ". ", "\n", "\n", "-", "\r\n", "\n\n", "\u{e9}"];

/// Writes about `bytes` of text into `files` files of the directory `input`, which it creates. The last line of each
/// file has no line end.
///
/// # Errors
/// What the file system says.
pub fn write_texts(input: &Path, files: u64, bytes: u64, seeded: &mut Seeded) -> io::Result<()> {
    fs::create_dir_all(input)?;
    for number in 0..files {
        fs::write(input.join(format!("text-{number:02}.txt")), text(bytes / files, seeded))?;
    }
    Ok(())
}

fn text(bytes: u64, seeded: &mut Seeded) -> String {
    let mut text = String::with_capacity(bytes as usize + 64);
    while (text.len() as u64) < bytes {
        push_word(&mut text, seeded);
        text.push_str(seeded.one_of(&SEPARATORS));
    }
    text.push_str("end");
    text
}

/// The third power of an even choice makes the first words of the vocabulary frequent.
fn push_word(text: &mut String, seeded: &mut Seeded) {
    let choice = seeded.within(0..1_000);
    let rank = choice * choice * choice * VOCABULARY / 1_000_000_000;
    let upper = seeded.within(0..8) == 0;
    // The rank in base 26: frequent words are short.
    let mut rest = rank + 1;
    while rest > 0 {
        let letter = (b'a' + (rest % 26) as u8) as char;
        text.push(if upper { letter.to_ascii_uppercase() } else { letter });
        rest /= 26;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words;

    #[test]
    fn a_text_has_frequent_and_rare_words() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        write_texts(folder.path(), 3, 300_000, &mut Seeded::new(1))?;
        let counts = words::count(folder.path())?;
        assert!(counts.len() > 500, "{} words", counts.len());
        assert!(counts.values().any(|count| *count > 2_000), "no word is frequent");
        assert!(counts.values().any(|count| *count < 20), "no word is rare");
        Ok(())
    }
}
