//! An input file, opened at a position: checked once, then read at any place. All calls block.

use std::io;

use env::{Files, ReadFile};
use types::{Digest, Error, Result};

use super::split::FileSplit;

pub(super) struct InputFile {
    file: Box<dyn ReadFile>,
    path: String,
    /// Its length when it was found.
    len: u64,
}

impl InputFile {
    /// Opens the file of a split; returns with it the bytes before the position.
    ///
    /// # Errors
    /// `BadInput` if the file no longer holds what the position refers to.
    pub(super) fn open(files: &dyn Files, split: &FileSplit) -> Result<(Self, Vec<u8>)> {
        if !split.is_sound() {
            return Err(Error::corrupt(format!(
                "the position in {} is damaged: {split:?}; restore an older checkpoint",
                split.path
            )));
        }
        let file = files.open(split.path.as_ref()).map_err(|error| unreadable(&split.path, error))?;
        let input = Self { file, path: split.path.clone(), len: split.len };
        let len = input.file.len().map_err(|error| unreadable(&input.path, error))?;
        if len < split.len {
            return Err(input.too_short(len));
        }
        let before = input.check_before(split)?;
        Ok((input, before))
    }

    fn check_before(&self, split: &FileSplit) -> Result<Vec<u8>> {
        let start = FileSplit::window_start(split.offset);
        let len = usize::try_from(split.offset - start).expect("a window fits into memory");
        let mut before = vec![0; len];
        self.read_exact(start, &mut before)?;
        if split.window.is_some_and(|window| window != Digest::of(&before)) {
            return Err(Error::bad_input(format!(
                "input file {} was changed between bytes {start} and {}, which were already read: put the old file \
                 back, or start with --from none",
                self.path, split.offset
            )));
        }
        Ok(before)
    }

    /// Fills `buffer` from `from`.
    ///
    /// # Errors
    /// `BadInput` if the file has become too short.
    pub(super) fn read_exact(&self, from: u64, buffer: &mut [u8]) -> Result<()> {
        let read = self.file.read_full(from, buffer).map_err(|error| unreadable(&self.path, error))?;
        if read < buffer.len() { Err(self.too_short(from + read as u64)) } else { Ok(()) }
    }

    fn too_short(&self, len: u64) -> Error {
        Error::bad_input(format!(
            "input file {} has {len} bytes, but had {} when the job first read it: put the old file back, or start \
             with --from none",
            self.path, self.len
        ))
    }
}

fn unreadable(path: &str, error: io::Error) -> Error {
    let place = format!("cannot read input file {path}: it must stay as it was when the job first read it");
    Error::io(place, error)
}
