//! The wrapping of every small durable file (history record, hint, manifest): magic, version, length, checksums around
//! a body in the codec `bincode2`. Called by whoever encodes or decodes one; a byte changed anywhere is noticed, and no
//! damaged length makes room: what is decoded takes at most three and a half times the file's length and 768 KiB.
//!
//! ```text
//! 0   magic            8 bytes
//! 8   version          u32 LE
//! 12  length of body   u64 LE
//! 20  CRC-32 of 0..20  u32 LE
//! 24  body
//! ..  xxh3-128 of all before it, u128 LE
//! ```

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use types::{Bincode, Codec, Digest, Error, Result};

const HEADER_LEN: usize = 24;
const TRAILER_LEN: usize = 16;
/// The greatest body that is read: far above any real one, far below what would hurt.
const MAX_BODY: usize = 256 << 20;

/// One kind of file in an envelope.
#[derive(Clone, Copy, Debug)]
pub struct Envelope {
    /// The first eight bytes.
    pub magic: [u8; 8],
    /// The version that is written, and the only one that is read: no older one was ever released.
    pub version: u32,
    /// What the file is, for messages.
    pub what: &'static str,
}

impl Envelope {
    /// Encodes `body` and wraps it.
    ///
    /// # Errors
    /// `Internal` if the body cannot be encoded, is too long, or could not be read again.
    pub fn seal<T: Serialize + DeserializeOwned>(&self, value: &T) -> Result<Bytes> {
        let mut body = Vec::new();
        Bincode::encode(value, &mut body)
            .map_err(|error| Error::internal(format!("cannot encode a {}", self.what)).with_source(error))?;
        // Far from what is real, a reader would refuse it as hostile.
        Bincode::decode_file::<T>(&body).map_err(|error| {
            let what = format!("a {} of {} bytes could not be read again", self.what, body.len());
            Error::internal(what).with_source(error)
        })?;
        if body.len() > MAX_BODY {
            return Err(Error::internal(format!(
                "a {} of {} bytes is longer than the {MAX_BODY} allowed",
                self.what,
                body.len()
            )));
        }
        let mut out = Vec::with_capacity(HEADER_LEN + body.len() + TRAILER_LEN);
        out.extend_from_slice(&self.magic);
        out.extend_from_slice(&self.version.to_le_bytes());
        out.extend_from_slice(&(body.len() as u64).to_le_bytes());
        out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
        out.extend_from_slice(&body);
        out.extend_from_slice(&Digest::of(&out).0.to_le_bytes());
        Ok(out.into())
    }

    /// Checks `bytes` and decodes the body; `place` is the file's path for messages.
    ///
    /// # Errors
    /// `Corrupt` if the bytes are not exactly one intact file of this kind, or were written by another version.
    pub fn open<T: DeserializeOwned>(&self, place: &str, bytes: &[u8]) -> Result<T> {
        let body = self.body(bytes).map_err(|what| self.corrupt(place, &what))?;
        Bincode::decode_file(body)
            .map_err(|error| self.corrupt(place, "its body cannot be decoded").with_source(error))
    }

    /// The body of an intact file, or what is wrong with it.
    fn body<'a>(&self, bytes: &'a [u8]) -> Result<&'a [u8], String> {
        let Some((header, rest)) = bytes.split_first_chunk::<HEADER_LEN>() else {
            return Err(format!("it is cut short at {} bytes", bytes.len()));
        };
        let (magic, header_rest) = header.split_first_chunk::<8>().expect("a header is longer than 8 bytes");
        if *magic != self.magic {
            return Err("it does not begin with the right magic bytes".into());
        }
        let mut fields = header_rest;
        let version = u32::from_le_bytes(take(&mut fields));
        let len = u64::from_le_bytes(take(&mut fields));
        let crc = u32::from_le_bytes(take(&mut fields));
        if crc != crc32fast::hash(&header[..HEADER_LEN - 4]) {
            return Err("the checksum of its header is wrong".into());
        }
        if version > self.version {
            return Err(format!(
                "it was written by a newer version (format {version}, this program reads up to {}): use that program",
                self.version
            ));
        }
        if version < self.version {
            return Err(format!(
                "it was written by a development version (format {version}, this program reads {}): use that program",
                self.version
            ));
        }
        if len > MAX_BODY as u64 || len + TRAILER_LEN as u64 != rest.len() as u64 {
            return Err(format!(
                "it has {} bytes after its header, expected {len} + {TRAILER_LEN}",
                rest.len()
            ));
        }
        let (body, trailer) = rest.split_at(rest.len() - TRAILER_LEN);
        let digest = Digest::of(&bytes[..bytes.len() - TRAILER_LEN]);
        if trailer != digest.0.to_le_bytes() {
            return Err(format!("its digest is {digest}, which is not what it says"));
        }
        Ok(body)
    }

    fn corrupt(&self, place: &str, what: &str) -> Error {
        Error::corrupt(format!("{} {place} is damaged: {what}", self.what))
    }
}

/// The first `N` bytes of `fields`, which has them.
fn take<const N: usize>(fields: &mut &[u8]) -> [u8; N] {
    let (first, rest) = fields.split_first_chunk().expect("the header's fields add up to its length");
    *fields = rest;
    *first
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use types::ErrorKind;

    const ENVELOPE: Envelope = Envelope { magic: [7; 8], version: 3, what: "test file" };

    #[test]
    fn every_changed_byte_and_every_cut_is_noticed() {
        let sealed = ENVELOPE.seal(&("body".to_owned(), 7_u64)).unwrap();
        let (text, number): (String, u64) = ENVELOPE.open("f", &sealed).unwrap();
        assert_eq!((text.as_str(), number), ("body", 7));
        for at in 0..sealed.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut bytes = sealed.to_vec();
                bytes[at] ^= flip;
                let error = ENVELOPE.open::<(String, u64)>("f", &bytes).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Corrupt, "byte {at}");
                assert!(error.message().contains("test file f"), "{error}");
            }
            assert!(ENVELOPE.open::<(String, u64)>("f", &sealed[..at]).is_err(), "cut at {at}");
        }
        let longer = [&sealed[..], &[0]].concat();
        assert!(ENVELOPE.open::<(String, u64)>("f", &longer).is_err());
    }

    #[test]
    fn another_version_is_told_apart_from_damage() {
        let newer = Envelope { version: 4, ..ENVELOPE }.seal(&1_u8).unwrap();
        let error = ENVELOPE.open::<u8>("f", &newer).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.message().contains("written by a newer version"), "{error}");
        let older = Envelope { version: 2, ..ENVELOPE }.seal(&1_u8).unwrap();
        let error = ENVELOPE.open::<u8>("f", &older).unwrap_err();
        assert!(error.message().contains("written by a development version"), "{error}");
    }

    #[test]
    fn a_body_that_lies_about_its_lengths_is_refused_without_allocating() {
        // A well-formed envelope around a sequence that claims 2^60 elements.
        let bytes = around(&[253, 0, 0, 0, 0, 0, 0, 0, 16]);
        assert_eq!(ENVELOPE.open::<Vec<u64>>("f", &bytes).unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(ENVELOPE.open::<String>("f", &bytes).unwrap_err().kind(), ErrorKind::Corrupt);
    }

    /// 24 bytes of memory for each byte, all of them there.
    #[test]
    fn what_would_take_far_more_memory_than_its_length_is_neither_written_nor_read() {
        let many = |count| vec![Vec::<u64>::new(); count];
        let sealed = ENVELOPE.seal(&many(5_000)).unwrap();
        assert_eq!(ENVELOPE.open::<Vec<Vec<u64>>>("f", &sealed).unwrap().len(), 5_000);
        let error = ENVELOPE.seal(&many(200_000)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert!(error.message().contains("could not be read again"), "{error}");
        let mut body = Vec::new();
        Bincode::encode(&many(200_000), &mut body).unwrap();
        let error = ENVELOPE.open::<Vec<Vec<u64>>>("f", &around(&body)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }

    /// An envelope of which only the body may be wrong.
    fn around(body: &[u8]) -> Vec<u8> {
        let mut bytes = ENVELOPE.magic.to_vec();
        bytes.extend(ENVELOPE.version.to_le_bytes());
        bytes.extend((body.len() as u64).to_le_bytes());
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        bytes.extend(body);
        bytes.extend(Digest::of(&bytes).0.to_le_bytes());
        bytes
    }
}
