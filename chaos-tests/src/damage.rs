//! Damage to the files of a checkpoint directory: what disks, copies and people do to bytes at rest.

use std::{collections::BTreeMap, fmt, fs, io, path::Path};

use crate::Seeded;

/// The files of a directory, by their path below it.
pub type Image = BTreeMap<String, Vec<u8>>;

/// Reads all files below `folder`.
///
/// # Errors
/// What the file system says.
pub fn read_image(folder: &Path) -> io::Result<Image> {
    let mut image = Image::new();
    collect(folder, "", &mut image)?;
    Ok(image)
}

/// Makes `folder` hold the files of `image` and nothing else.
///
/// # Errors
/// What the file system says.
pub fn write_image(folder: &Path, image: &Image) -> io::Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    for (path, bytes) in image {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap_or(folder))?;
        fs::write(path, bytes)?;
    }
    Ok(())
}

fn collect(folder: &Path, prefix: &str, image: &mut Image) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), &format!("{path}/"), image)?;
        } else {
            image.insert(path, fs::read(entry.path())?);
        }
    }
    Ok(())
}

/// One thing done to a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// A byte is another one: its bits in `mask` are turned over.
    Changed {
        /// The file.
        file: String,
        /// Where in it.
        offset: usize,
        /// Which bits; not 0.
        mask: u8,
    },
    /// Only the first bytes are left.
    Cut {
        /// The file.
        file: String,
        /// How many are left, fewer than there were.
        len: usize,
    },
    /// The file is gone.
    Removed {
        /// The file.
        file: String,
    },
    /// Two files have each other's bytes.
    Swapped {
        /// The one.
        file: String,
        /// The other.
        with: String,
    },
}

impl Damage {
    /// The files that are no longer what was written, at least one of which must be named.
    #[must_use]
    pub fn files(&self) -> Vec<&str> {
        match self {
            Self::Changed { file, .. } | Self::Cut { file, .. } | Self::Removed { file } => vec![file],
            Self::Swapped { file, with } => vec![file, with],
        }
    }

    /// What the files hold afterwards; `None` for one that is gone.
    ///
    /// # Panics
    /// If the image does not hold the files.
    #[must_use]
    pub fn outcome(&self, image: &Image) -> Vec<(String, Option<Vec<u8>>)> {
        match self {
            Self::Changed { file, offset, mask } => {
                let mut bytes = image[file].clone();
                bytes[*offset] ^= mask;
                vec![(file.clone(), Some(bytes))]
            }
            Self::Cut { file, len } => vec![(file.clone(), Some(image[file][..*len].to_vec()))],
            Self::Removed { file } => vec![(file.clone(), None)],
            Self::Swapped { file, with } => {
                vec![(file.clone(), Some(image[with].clone())), (with.clone(), Some(image[file].clone()))]
            }
        }
    }

    /// The whole image with the damage done.
    ///
    /// # Panics
    /// If the image does not hold the files.
    #[must_use]
    pub fn done_to(&self, image: &Image) -> Image {
        let mut damaged = image.clone();
        for (file, bytes) in self.outcome(image) {
            match bytes {
                Some(bytes) => damaged.insert(file, bytes),
                None => damaged.remove(&file),
            };
        }
        damaged
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed { file, offset, mask } => write!(f, "byte {offset} of {file} xor {mask:#04x}"),
            Self::Cut { file, len } => write!(f, "{file} cut to {len} bytes"),
            Self::Removed { file } => write!(f, "{file} removed"),
            Self::Swapped { file, with } => write!(f, "{file} and {with} swapped"),
        }
    }
}

/// Each byte of `range` of a file, changed in seeded bits.
pub fn every_byte(
    file: &str,
    range: std::ops::Range<usize>,
    seeded: &mut Seeded,
) -> impl Iterator<Item = Damage> {
    range.map(move |offset| {
        let mask = seeded.within(1..256) as u8;
        Damage::Changed { file: file.to_owned(), offset, mask }
    })
}

/// One seeded bit of `range` of a file.
///
/// # Panics
/// If the range is empty.
#[must_use]
pub fn one_bit(file: &str, range: std::ops::Range<usize>, seeded: &mut Seeded) -> Damage {
    let offset = seeded.within(range.start as u64..range.end as u64) as usize;
    Damage::Changed { file: file.to_owned(), offset, mask: 1 << seeded.within(0..8) }
}

/// The file gone, cut at seeded places and at both ends, and swapped with each of `siblings` whose bytes differ.
#[must_use]
pub fn whole_file(file: &str, siblings: &[&str], image: &Image, seeded: &mut Seeded) -> Vec<Damage> {
    let len = image[file].len();
    let mut damages = vec![Damage::Removed { file: file.to_owned() }];
    let mut lengths = vec![0, len.saturating_sub(1), seeded.within(0..len.max(1) as u64) as usize];
    lengths.sort_unstable();
    lengths.dedup();
    lengths.retain(|left| *left < len);
    damages.extend(lengths.into_iter().map(|len| Damage::Cut { file: file.to_owned(), len }));
    let others = siblings.iter().filter(|sibling| **sibling > file && image[**sibling] != image[file]);
    damages.extend(others.map(|with| Damage::Swapped { file: file.to_owned(), with: (*with).to_owned() }));
    damages
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> Image {
        [("a", "first"), ("b", "second"), ("c", "first")]
            .map(|(path, text)| (path.to_owned(), text.as_bytes().to_vec()))
            .into()
    }

    #[test]
    fn damage_is_always_damage() {
        let (image, mut seeded) = (image(), Seeded::new(1));
        let mut damages: Vec<_> = every_byte("b", 0..6, &mut seeded).collect();
        damages.extend((0..50).map(|_| one_bit("b", 2..4, &mut seeded)));
        damages.extend(whole_file("a", &["a", "b", "c"], &image, &mut seeded));
        for damage in &damages {
            let outcome = damage.outcome(&image);
            assert!(outcome.iter().all(|(file, bytes)| bytes.as_ref() != Some(&image[file])), "{damage}");
            assert_eq!(outcome.iter().map(|(file, _)| &**file).collect::<Vec<_>>(), damage.files());
        }
        let swaps = damages.iter().filter(|damage| matches!(damage, Damage::Swapped { .. })).count();
        assert_eq!(swaps, 1, "a file is not swapped with its equal");
    }
}
