//! The first 16 and the last 256 bytes of a run file: what it is, who wrote it, how much is in it, and where the sections
//! are. `FORMAT.md` draws them.

use types::{AttemptId, Error, JobId, KeyGroupRange, Result, Run, RunIdentity, SubtaskIndex, Uid};

use super::bytes::Cursor;

/// The version of the format that this program writes, and the newest that it reads.
pub(crate) const VERSION: u32 = 1;
pub(crate) const HEADER_LEN: u64 = 16;
pub(crate) const FOOTER_LEN: u64 = 256;

const HEADER_MAGIC: &[u8; 8] = b"\x89TGRUN\r\n";
const FOOTER_MAGIC: &[u8; 8] = b"TGRUNEND";

/// The header's bytes.
pub(crate) fn header() -> [u8; HEADER_LEN as usize] {
    let mut header = [0; HEADER_LEN as usize];
    header[..8].copy_from_slice(HEADER_MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    let crc = crc32fast::hash(&header[..12]);
    header[12..].copy_from_slice(&crc.to_le_bytes());
    header
}

/// Checks the first bytes of a file.
pub(crate) fn check_header(bytes: &[u8]) -> Result<()> {
    let mut cursor = Cursor::new(bytes);
    if cursor.take(8)? != HEADER_MAGIC {
        return Err(Error::corrupt("does not begin as a run file"));
    }
    let version = cursor.u32()?;
    if cursor.u32()? != crc32fast::hash(&bytes[..12]) {
        return Err(Error::corrupt("header checksum does not match"));
    }
    check_version(version)
}

fn check_version(version: u32) -> Result<()> {
    match version {
        VERSION => Ok(()),
        0 => Err(Error::corrupt("has no run format version")),
        _ => Err(Error::corrupt(format!(
            "was written by a newer version (run format {version}, this program reads up to {VERSION}): use that program"
        ))),
    }
}

/// A section between the blocks and the footer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Section {
    pub(crate) offset: u64,
    pub(crate) len: u32,
    pub(crate) crc: u32,
}

impl Section {
    pub(crate) fn of(bytes: &[u8], offset: u64) -> Self {
        Self { offset, len: bytes.len() as u32, crc: crc32fast::hash(bytes) }
    }

    pub(crate) fn end(self) -> u64 {
        self.offset + u64::from(self.len)
    }
}

/// How much is in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) entries: u64,
    pub(crate) tombstones: u64,
    pub(crate) plain_bytes: u64,
}

/// The last bytes of a run file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Footer {
    pub(crate) identity: RunIdentity,
    /// The key groups of the subtask that wrote it.
    pub(crate) groups: KeyGroupRange,
    pub(crate) totals: Totals,
    pub(crate) blocks: u32,
    pub(crate) schema: Section,
    pub(crate) index: Section,
}

impl Footer {
    /// The length of the file.
    pub(crate) fn file_len(&self) -> u64 {
        self.index.end() + FOOTER_LEN
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(FOOTER_LEN as usize);
        out.extend_from_slice(FOOTER_MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&self.identity.job.0.to_le_bytes());
        out.extend_from_slice(&self.identity.attempt.0.to_le_bytes());
        out.extend_from_slice(&self.identity.subtask.0.to_le_bytes());
        out.extend_from_slice(&self.identity.number.to_le_bytes());
        out.extend_from_slice(&self.groups.start.to_le_bytes());
        out.extend_from_slice(&self.groups.end.to_le_bytes());
        for total in [self.totals.entries, self.totals.tombstones, self.totals.plain_bytes] {
            out.extend_from_slice(&total.to_le_bytes());
        }
        out.extend_from_slice(&self.blocks.to_le_bytes());
        for section in [self.schema, self.index] {
            out.extend_from_slice(&section.offset.to_le_bytes());
            out.extend_from_slice(&section.len.to_le_bytes());
            out.extend_from_slice(&section.crc.to_le_bytes());
        }
        out.extend_from_slice(&self.file_len().to_le_bytes());
        super::bytes::push_short_text(&mut out, self.identity.operator.as_str());
        out.resize(FOOTER_LEN as usize - 4, 0);
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads a footer and checks what can be checked without the rest of the file.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let (body, crc) = bytes
            .split_last_chunk::<4>()
            .filter(|_| bytes.len() as u64 == FOOTER_LEN)
            .ok_or_else(|| Error::corrupt("is too short for a footer"))?;
        let mut cursor = Cursor::new(body);
        if cursor.take(8)? != FOOTER_MAGIC {
            return Err(Error::corrupt("does not end as a run file"));
        }
        let version = cursor.u32()?;
        if u32::from_le_bytes(*crc) != crc32fast::hash(body) {
            return Err(Error::corrupt("footer checksum does not match"));
        }
        check_version(version)?;
        let (job, attempt) = (JobId(cursor.u128()?), AttemptId(cursor.u64()?));
        let (subtask, number) = (SubtaskIndex(cursor.u32()?), cursor.u64()?);
        let groups = KeyGroupRange { start: cursor.u16()?, end: cursor.u16()? };
        let totals = Totals { entries: cursor.u64()?, tombstones: cursor.u64()?, plain_bytes: cursor.u64()? };
        let blocks = cursor.u32()?;
        let mut section =
            || Ok::<_, Error>(Section { offset: cursor.u64()?, len: cursor.u32()?, crc: cursor.u32()? });
        let (schema, index) = (section()?, section()?);
        let file_len = cursor.u64()?;
        let operator = cursor.short_text()?;
        let operator = Uid::new(operator).map_err(|error| Error::corrupt(error.message()))?;
        let identity = RunIdentity { job, attempt, operator, subtask, number };
        let footer = Self { identity, groups, totals, blocks, schema, index };
        let in_order = schema.offset >= HEADER_LEN
            && schema.offset.checked_add(u64::from(schema.len)) == Some(index.offset)
            && index.offset.checked_add(u64::from(index.len) + FOOTER_LEN) == Some(file_len);
        if !in_order {
            return Err(Error::corrupt("footer places its sections wrongly"));
        }
        Ok(footer)
    }

    /// Compares the footer with what a manifest says about the run.
    pub(crate) fn check(&self, run: &Run) -> Result<()> {
        let mismatch = |what: &str, expected: &dyn std::fmt::Display, found: &dyn std::fmt::Display| {
            Err(Error::corrupt(format!("{what} is {found}, the manifest says {expected}")))
        };
        let (expected, found) = (&run.identity, &self.identity);
        if expected != found {
            return mismatch("identity", &Named(expected), &Named(found));
        }
        if self.file_len() != run.file.len {
            return mismatch("length", &run.file.len, &self.file_len());
        }
        if !self.groups.covers(run.groups) {
            return mismatch("range of key groups", &run.groups, &self.groups);
        }
        let expected =
            Totals { entries: run.entries, tombstones: run.tombstones, plain_bytes: run.plain_bytes };
        if self.totals != expected {
            return mismatch("number of entries", &expected.entries, &self.totals.entries);
        }
        Ok(())
    }
}

/// An identity in a message.
struct Named<'a>(&'a RunIdentity);

impl std::fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let RunIdentity { job, attempt, operator, subtask, number } = self.0;
        write!(f, "run {number} of {operator:?} subtask {subtask}, attempt {attempt}, job {job}")
    }
}
