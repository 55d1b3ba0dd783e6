//! Reading little-endian numbers and counted pieces out of bytes that may be damaged: never panics, never allocates more
//! than the bytes that are there.

use types::{Error, Result};

/// Reads from the front of a byte string.
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

macro_rules! numbers {
    ($($name:ident: $type:ty),*) => {$(
        pub(crate) fn $name(&mut self) -> Result<$type> {
            let bytes = self.take(size_of::<$type>())?;
            Ok(<$type>::from_le_bytes(bytes.try_into().expect("as many bytes were taken")))
        }
    )*};
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    numbers! { u8: u8, u16: u16, u32: u32, u64: u64, u128: u128 }

    /// The next `len` bytes.
    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(len).filter(|end| *end <= self.bytes.len());
        let end =
            end.ok_or_else(|| Error::corrupt(format!("ends at byte {} too early", self.bytes.len())))?;
        let piece = &self.bytes[self.at..end];
        self.at = end;
        Ok(piece)
    }

    /// Text whose length stands before it in one byte.
    pub(crate) fn short_text(&mut self) -> Result<&'a str> {
        let len = self.u8()?;
        let bytes = self.take(usize::from(len))?;
        std::str::from_utf8(bytes).map_err(|_| Error::corrupt("a name is not UTF-8"))
    }

    /// Bytes whose length stands before them as `u32`.
    pub(crate) fn counted(&mut self) -> Result<&'a [u8]> {
        let len = self.u32()?;
        self.take(len as usize)
    }

    /// Fails if anything is left.
    pub(crate) fn finish(self) -> Result<()> {
        match self.bytes.len() - self.at {
            0 => Ok(()),
            left => Err(Error::corrupt(format!("{left} bytes too many"))),
        }
    }
}

/// Appends text with its length in one byte before it.
///
/// # Panics
/// If it is longer than 255 bytes: names and ids are checked when they are made.
pub(crate) fn push_short_text(out: &mut Vec<u8>, text: &str) {
    out.push(u8::try_from(text.len()).expect("names and ids are short"));
    out.extend_from_slice(text.as_bytes());
}

/// Appends bytes with their length before them as `u32`.
pub(crate) fn push_counted(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}
