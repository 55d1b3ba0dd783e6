//! Writing a run: [`RunWriter`] takes sorted entries and gives out the file piece by piece; [`write_run`] sorts a delta
//! and writes it. CPU only: called on the blocking pool.

use bytes::Bytes;
use env::Payload;
use types::{Digest, DigestBuilder, KeyGroup, KeyGroupRange, Result, Run, RunIdentity, SnapshotFile};

use super::{
    block::{BlockBuilder, RunCompression},
    entry::{Entry, is_tombstone, push_entry},
    footer::{Footer, Section, Totals, header},
    index::{self, BlockMeta},
    resolve::visit_resolved,
    schema::Schema,
    sort::visit_sorted,
};
use crate::table::Delta;

/// Pieces of the file are handed out when they are about this long.
const PIECE_LEN: usize = 1 << 20;
/// A piece is handed out with the block that makes it long enough.
const PIECE_CAPACITY: usize = PIECE_LEN + (PIECE_LEN >> 3);

/// Writes one run file. Entries must come sorted by state, key group, key, and place below the key.
pub(crate) struct RunWriter {
    identity: RunIdentity,
    groups: KeyGroupRange,
    schema: Schema,
    builder: BlockBuilder,
    index: Vec<BlockMeta>,
    /// Written and not yet handed out.
    out: Vec<u8>,
    /// The length of what was handed out.
    handed_out: u64,
    digest: DigestBuilder,
}

/// What is known about a file when its last piece is handed out.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) len: u64,
    pub(crate) digest: Digest,
    pub(crate) identity: RunIdentity,
    pub(crate) groups: KeyGroupRange,
    pub(crate) totals: Totals,
}

impl Written {
    /// The run, as a checkpoint lists it.
    pub(crate) fn into_run(self, path: &str) -> Run {
        Run {
            file: SnapshotFile { path: path.to_owned(), len: self.len, digest: self.digest },
            identity: self.identity,
            groups: self.groups,
            without: Vec::new(),
            entries: self.totals.entries,
            tombstones: self.totals.tombstones,
            plain_bytes: self.totals.plain_bytes,
        }
    }
}

impl RunWriter {
    pub(crate) fn new(
        identity: RunIdentity,
        groups: KeyGroupRange,
        schema: Schema,
        compression: RunCompression,
    ) -> Result<Self> {
        Ok(Self {
            identity,
            groups,
            schema,
            builder: BlockBuilder::new(compression)?,
            index: Vec::new(),
            out: header().to_vec(),
            handed_out: 0,
            digest: DigestBuilder::default(),
        })
    }

    /// Adds an entry of the `state`-th state of the schema, whose encoded bytes are `bytes`.
    #[inline]
    pub(crate) fn push(&mut self, state: u16, group: KeyGroup, bytes: &[u8]) -> Result<()> {
        if self.builder.is_full() {
            self.close_block()?;
        }
        let totals = &mut self.schema.states[usize::from(state)].totals;
        totals.entries += 1;
        totals.tombstones += u64::from(is_tombstone(bytes));
        totals.plain_bytes += bytes.len() as u64;
        self.builder.push(state, group, bytes);
        Ok(())
    }

    /// Adds an entry that is not encoded yet.
    pub(crate) fn push_entry(&mut self, state: u16, group: KeyGroup, entry: &Entry<'_>) -> Result<()> {
        let mut bytes = Vec::new();
        push_entry(&mut bytes, entry);
        self.push(state, group, &bytes)
    }

    fn offset(&self) -> u64 {
        self.handed_out + self.out.len() as u64
    }

    fn close_block(&mut self) -> Result<()> {
        let offset = self.offset();
        let meta = self.builder.close(offset, &mut self.out)?;
        self.index.push(meta);
        Ok(())
    }

    /// Whether enough is there for a piece of the file.
    pub(crate) fn has_piece(&self) -> bool {
        self.out.len() >= PIECE_LEN
    }

    /// The next piece of the file, if enough is there for one.
    pub(crate) fn take_piece(&mut self) -> Option<Bytes> {
        // The next one will be as long: growing there from nothing would copy it twice over.
        self.has_piece().then(|| self.hand_out(PIECE_CAPACITY))
    }

    /// Gives out what is written, and begins anew with room for `capacity` bytes.
    fn hand_out(&mut self, capacity: usize) -> Bytes {
        self.digest.update(&self.out);
        self.handed_out += self.out.len() as u64;
        Bytes::from(std::mem::replace(&mut self.out, Vec::with_capacity(capacity)))
    }

    /// The last piece of the file.
    pub(crate) fn finish(mut self) -> Result<(Bytes, Written)> {
        if !self.builder.is_empty() {
            self.close_block()?;
        }
        let totals = self.schema.totals();
        let schema_bytes = self.schema.encode();
        let schema = Section::of(&schema_bytes, self.offset());
        self.out.extend_from_slice(&schema_bytes);
        let index_bytes = index::encode(&self.index);
        let index = Section::of(&index_bytes, self.offset());
        self.out.extend_from_slice(&index_bytes);
        let blocks = self.index.len() as u32;
        let footer =
            Footer { identity: self.identity.clone(), groups: self.groups, totals, blocks, schema, index };
        self.out.extend_from_slice(&footer.encode());
        let last = self.hand_out(0);
        let digest = self.digest.finish();
        let written =
            Written { len: self.handed_out, digest, identity: self.identity, groups: self.groups, totals };
        Ok((last, written))
    }
}

/// A whole run file in memory, and what a checkpoint must know about it.
#[derive(Clone, Debug)]
pub struct WrittenRun {
    /// The bytes of the file.
    pub payload: Payload,
    written: Written,
}

impl WrittenRun {
    /// The length of the file in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.written.len
    }

    /// Whether it holds no entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries() == 0
    }

    /// The digest of the file.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.written.digest
    }

    /// The entries, tombstones included.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.written.totals.entries
    }

    /// The tombstones.
    #[must_use]
    pub fn tombstones(&self) -> u64 {
        self.written.totals.tombstones
    }

    /// The length of the entries before compression, in bytes.
    #[must_use]
    pub fn plain_bytes(&self) -> u64 {
        self.written.totals.plain_bytes
    }
}

/// Sorts, encodes and compresses a delta. Blocks and computes: call it away from the tasks. The bytes depend on the state
/// at the two barriers around the delta alone, and on the identity.
///
/// # Errors
/// `User` for a value that is too large.
pub fn write_run(
    delta: Delta,
    identity: RunIdentity,
    groups: KeyGroupRange,
    compression: RunCompression,
) -> Result<WrittenRun> {
    let Delta { key, states, .. } = delta;
    let schema = Schema::new(key, states.iter().map(|state| state.spec.clone()));
    let mut writer = RunWriter::new(identity, groups, schema, compression)?;
    let mut payload = Payload::new();
    for (number, state) in states.into_iter().enumerate() {
        let visit = |group: KeyGroup, bytes: &[u8]| {
            writer.push(number as u16, group, bytes)?;
            payload.extend(writer.take_piece());
            Ok(())
        };
        if state.segmented {
            visit_resolved(&state.drained, state.spec.kind, groups, visit)?;
        } else {
            visit_sorted(&state.drained, groups, visit)?;
        }
    }
    let (last, written) = writer.finish()?;
    payload.push(last);
    Ok(WrittenRun { payload, written })
}

/// The run that a checkpoint lists once the file is at `path`.
#[must_use]
pub fn run_of(written: &WrittenRun, path: &str) -> Run {
    written.written.clone().into_run(path)
}
