//! A copy that was compared with what the manifest says, and the digests of its pieces, with which each later read of it is
//! compared: so what is used is what was digested, whatever becomes of the disk in between.

use std::{fmt, io, ops::Range};

use bytes::Bytes;
use env::ReadFile;
use types::{DigestBuilder, SnapshotFile};
use xxhash_rust::xxh3::xxh3_64;

/// The length of a piece: a window of blocks is four of them, and a terabyte has 32 MiB of digests.
const PIECE: u64 = 256 << 10;

/// Why a copy cannot be used.
#[derive(Debug)]
pub(super) enum Flaw {
    /// There is none.
    Missing,
    /// What is wrong with it.
    Damaged(String),
}

impl From<io::Error> for Flaw {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            _ => Self::Damaged(error.to_string()),
        }
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("it is gone"),
            Self::Damaged(how) => f.write_str(how),
        }
    }
}

/// What came of looking at a copy.
type Attempted<T> = Result<T, Flaw>;

/// What was found out about a copy.
#[derive(Debug)]
pub(super) struct Checked {
    file: SnapshotFile,
    pieces: Vec<u64>,
    /// It was read from the store in this attempt.
    pub(super) is_fetched: bool,
}

impl Checked {
    /// Reads a copy from its start to its end; blocks.
    pub(super) fn read_whole(copy: &dyn ReadFile, file: &SnapshotFile) -> Attempted<Self> {
        let len = copy.len()?;
        if len != file.len {
            return Err(Flaw::Damaged(format!("it has {len} bytes, the manifest says {}", file.len)));
        }
        let mut checking = Checking::default();
        let mut buffer = vec![0; PIECE.min(len) as usize];
        let mut at = 0;
        while at < len {
            let wanted = PIECE.min(len - at) as usize;
            let read = copy.read_full(at, &mut buffer[..wanted])?;
            if read < wanted {
                return Err(Flaw::Damaged(format!("it ends at {}", at + read as u64)));
            }
            checking.add(&buffer[..wanted]);
            at += wanted as u64;
        }
        checking.finish(file, false)
    }

    /// Whether it was compared with this very file.
    pub(super) fn is_of(&self, file: &SnapshotFile) -> bool {
        self.file == *file
    }

    /// Bytes of the copy, fewer where it ends earlier; blocks.
    pub(super) fn read(&self, copy: &dyn ReadFile, range: Range<u64>) -> Attempted<Bytes> {
        let (start, end) = (range.start.min(self.file.len), range.end.min(self.file.len));
        if start >= end {
            return Ok(Bytes::new());
        }
        let from = start / PIECE * PIECE;
        let until = end.div_ceil(PIECE).saturating_mul(PIECE).min(self.file.len);
        let mut bytes = Vec::new();
        let wanted = (until - from) as usize;
        bytes.try_reserve_exact(wanted).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        bytes.resize(wanted, 0);
        let read = copy.read_full(from, &mut bytes)?;
        let pieces = self.pieces.iter().skip((from / PIECE) as usize);
        let same = bytes.chunks(PIECE as usize).zip(pieces).all(|(bytes, digest)| xxh3_64(bytes) == *digest);
        if read < wanted || !same {
            return Err(Flaw::Damaged("it has changed since it was checked".to_owned()));
        }
        Ok(Bytes::from(bytes).slice((start - from) as usize..(end - from) as usize))
    }
}

/// The digests of a file whose bytes come one after the other.
#[derive(Default)]
pub(super) struct Checking {
    whole: DigestBuilder,
    len: u64,
    pieces: Vec<u64>,
    /// The begin of the next piece.
    rest: Vec<u8>,
}

impl Checking {
    /// The next bytes.
    pub(super) fn add(&mut self, mut bytes: &[u8]) {
        self.whole.update(bytes);
        self.len += bytes.len() as u64;
        while !bytes.is_empty() {
            if self.rest.is_empty() && bytes.len() >= PIECE as usize {
                let (piece, rest) = bytes.split_at(PIECE as usize);
                self.pieces.push(xxh3_64(piece));
                bytes = rest;
                continue;
            }
            let (missing, rest) = bytes.split_at(bytes.len().min(PIECE as usize - self.rest.len()));
            self.rest.extend_from_slice(missing);
            bytes = rest;
            if self.rest.len() == PIECE as usize {
                self.pieces.push(xxh3_64(&self.rest));
                self.rest.clear();
            }
        }
    }

    /// All bytes have come: are they the file's?
    pub(super) fn finish(mut self, file: &SnapshotFile, is_fetched: bool) -> Attempted<Checked> {
        if !self.rest.is_empty() {
            self.pieces.push(xxh3_64(&self.rest));
        }
        let found = self.whole.finish();
        if (self.len, found) != (file.len, file.digest) {
            return Err(Flaw::Damaged(format!("its digest is {found}, the manifest says {}", file.digest)));
        }
        Ok(Checked { file: file.clone(), pieces: self.pieces, is_fetched })
    }
}
