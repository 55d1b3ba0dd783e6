//! Blocks: about 64 KiB of entries, compressed together as columns, with a checksum over the stored bytes.
//!
//! [`BlockBuilder`] fills them, [`Opener`] takes one apart, [`Walk`] reads what is in it.

use types::{Error, KeyGroup, Result};
use zstd::bulk::{Compressor, Decompressor};

use super::{
    columns::{self, Columns},
    contexts::{self, Lent},
    copy::append,
    entry::{Entry, Item, Items, Short, decode, push_mark},
    footer::Footer,
    index::{BlockMeta, Compression, MAX_COLUMNS_LEN, MAX_FIRST_KEY, least_stored_len},
};

/// A block is closed when it is at least this long before compression. With the entry that filled it, it mostly fits into
/// 64 KiB, a size that allocators have: a restore keeps blocks in memory, and in the next larger size they took a fifth more.
const TARGET_LEN: usize = 63 << 10;

/// How the blocks of a run are stored. Readers take either, whatever a job writes now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RunCompression {
    /// As they are: more bytes, less processor time.
    None,
    /// By zstd at level 1, where that helps.
    #[default]
    Zstd,
}

/// Fills one block after the other.
pub(crate) struct BlockBuilder {
    plain: Vec<u8>,
    entries: u32,
    /// State and key group of the last entry in the block.
    mark: Option<(u16, KeyGroup)>,
    first: Option<(u16, KeyGroup, Box<[u8]>)>,
    /// None where nothing is to be compressed.
    compressor: Option<Lent<Compressor<'static>>>,
    columns: Columns,
    thrift: Thrift,
}

/// Whether trying to compress is worth its while: processor time for bytes. What does not compress costs as much to try
/// as what does, so after a block that shrank too little some are stored as they are, and more each time.
#[derive(Default)]
struct Thrift {
    /// Blocks to be stored without a try.
    skip: u32,
    /// How many that will be after the next failure.
    after_failure: u32,
}

impl Thrift {
    /// A try has paid if it took a fifth off: with less, writing the bytes costs less than compressing them.
    const LEAST_SAVING: usize = 5;
    /// The most blocks stored between two tries: 1 MiB.
    const MAX_SKIP: u32 = 16;

    /// Whether the next block is to be compressed.
    fn tries(&mut self) -> bool {
        let tries = self.skip == 0;
        self.skip = self.skip.saturating_sub(1);
        tries
    }

    /// Notes what a try has come to.
    fn tried(&mut self, plain: usize, compressed: usize) {
        if compressed <= plain - plain / Self::LEAST_SAVING {
            self.after_failure = 0;
        } else {
            self.after_failure = (2 * self.after_failure).clamp(1, Self::MAX_SKIP);
            self.skip = self.after_failure;
        }
    }
}

impl BlockBuilder {
    pub(crate) fn new(compression: RunCompression) -> Result<Self> {
        let compressor = match compression {
            RunCompression::None => None,
            RunCompression::Zstd => Some(contexts::compressor()?),
        };
        let plain = Vec::with_capacity(TARGET_LEN + (TARGET_LEN >> 2));
        Ok(Self {
            plain,
            entries: 0,
            mark: None,
            first: None,
            compressor,
            columns: Columns::default(),
            thrift: Thrift::default(),
        })
    }

    /// Whether the block should be closed before anything is added.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.plain.len() >= TARGET_LEN
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Adds an entry whose encoded bytes are `bytes`.
    #[inline]
    pub(crate) fn push(&mut self, state: u16, group: KeyGroup, bytes: &[u8]) {
        if self.mark != Some((state, group)) {
            self.push_mark(state, group, bytes);
        }
        append(&mut self.plain, bytes);
        self.entries += 1;
    }

    fn push_mark(&mut self, state: u16, group: KeyGroup, next: &[u8]) {
        push_mark(&mut self.plain, state, group);
        self.mark = Some((state, group));
        if self.first.is_none() {
            let key = decode(next).key;
            self.first = Some((state, group, key[..key.len().min(MAX_FIRST_KEY)].into()));
        }
    }

    /// Appends the stored form of the block to `out` and describes it; `offset` is its place in the file. The builder is
    /// then empty again.
    pub(crate) fn close(&mut self, offset: u64, out: &mut Vec<u8>) -> Result<BlockMeta> {
        let begin = out.len();
        let compression = self.compress(out)?;
        let stored = &out[begin..];
        let (state, group, first_key) = self.first.take().expect("a block is closed when it holds entries");
        let too_long = |_| Error::user("a block of over 4 GiB: split the value");
        let meta = BlockMeta {
            offset,
            stored_len: stored.len().try_into().map_err(too_long)?,
            plain_len: self.plain.len().try_into().map_err(too_long)?,
            crc: crc32fast::hash(stored),
            entries: self.entries,
            compression,
            state,
            group,
            first_key,
        };
        self.plain.clear();
        self.entries = 0;
        self.mark = None;
        Ok(meta)
    }

    /// Compresses if that helps and a reader would accept the ratio. Depends on the blocks of this run alone.
    fn compress(&mut self, out: &mut Vec<u8>) -> Result<Compression> {
        let Some(compressor) = self.compressor.as_mut().filter(|_| self.thrift.tries()) else {
            out.extend_from_slice(&self.plain);
            return Ok(Compression::Raw);
        };
        let (items, how) = match self.plain.len() {
            ..=MAX_COLUMNS_LEN => (self.columns.split(&self.plain)?, Compression::Zstd),
            _ => (self.plain.as_slice(), Compression::ZstdRows),
        };
        let begin = out.len();
        let bound = zstd::zstd_safe::compress_bound(items.len());
        out.resize(begin + bound, 0);
        let compressed = compressor.compress_to_buffer(items, &mut out[begin..]);
        let len =
            compressed.map_err(|error| Error::internal("zstd failed to compress").with_source(error))?;
        self.thrift.tried(self.plain.len(), len);
        let missing = least_stored_len(self.plain.len()).saturating_sub(len);
        let padding = if missing == 0 { 0 } else { missing.max(SKIPPED_HEAD) };
        if len + padding < self.plain.len() {
            out.truncate(begin + len);
            push_padding(out, padding);
            return Ok(how);
        }
        out.truncate(begin);
        out.extend_from_slice(&self.plain);
        Ok(Compression::Raw)
    }
}

/// What stands before the bytes of a frame that zstd skips: its magic number and their length.
const SKIPPED_HEAD: usize = 8;
const SKIPPED_MAGIC: u32 = 0x184D_2A50;

/// Appends `len` bytes that zstd passes over, if any: at least [`SKIPPED_HEAD`].
fn push_padding(out: &mut Vec<u8>, len: usize) {
    if let Some(rest) = len.checked_sub(SKIPPED_HEAD) {
        out.extend_from_slice(&SKIPPED_MAGIC.to_le_bytes());
        out.extend_from_slice(&(rest as u32).to_le_bytes());
        out.resize(out.len() + rest, 0);
    }
}

/// Opens blocks, with the same tools for all.
#[derive(Default)]
pub(crate) struct Opener {
    decompressor: Option<Lent<Decompressor<'static>>>,
    /// The columns of the block that is being opened.
    columns: Vec<u8>,
}

/// Whether these are the stored bytes of a block.
///
/// # Errors
/// `Corrupt` if they are not.
pub(crate) fn check_stored(meta: &BlockMeta, stored: &[u8]) -> Result<()> {
    if stored.len() != meta.stored_len as usize {
        return Err(Error::corrupt("the file ends within a block"));
    }
    let crc = crc32fast::hash(stored);
    if crc != meta.crc {
        return Err(Error::corrupt(format!("block checksum is {crc:08x}, expected {:08x}", meta.crc)));
    }
    Ok(())
}

impl Opener {
    /// Checks the stored bytes of a block and gives back the plain ones.
    pub(crate) fn open(&mut self, meta: &BlockMeta, stored: &[u8]) -> Result<Vec<u8>> {
        check_stored(meta, stored)?;
        match meta.compression {
            Compression::Raw => Ok(stored.to_vec()),
            Compression::Zstd => {
                let (entries, plain_len) = (meta.entries as usize, meta.plain_len as usize);
                let mut columns = std::mem::take(&mut self.columns);
                columns.clear();
                columns.reserve_exact(columns::bound(plain_len, entries));
                self.decompress(stored, &mut columns)?;
                let plain = columns::join(&columns, entries, plain_len);
                self.columns = columns;
                plain
            }
            Compression::ZstdRows => {
                let mut plain = Vec::with_capacity(meta.plain_len as usize);
                self.decompress(stored, &mut plain)?;
                if plain.len() != meta.plain_len as usize {
                    return Err(Error::corrupt("a block is not as long as the index says"));
                }
                Ok(plain)
            }
        }
    }

    /// Into the room that `out` has.
    fn decompress(&mut self, stored: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let decompressor = match &mut self.decompressor {
            Some(decompressor) => decompressor,
            none => none.insert(contexts::decompressor()?),
        };
        decompressor
            .decompress_to_buffer(stored, out)
            .map(drop)
            .map_err(|error| Error::corrupt("a block cannot be decompressed").with_source(error))
    }
}

/// Where an entry belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Home {
    pub(crate) state: u16,
    pub(crate) group: KeyGroup,
}

/// An entry, where it belongs, and its encoded bytes.
pub(crate) type Located<'a> = (Home, Entry<'a>, &'a [u8]);

/// Reads the entries of a plain block, checking that they are where the index and footer say.
pub(crate) struct Walk {
    at: usize,
    home: Option<Home>,
    left: u32,
}

/// Bounds that a block's marks must keep.
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) states: u16,
    pub(crate) groups: types::KeyGroupRange,
}

impl Bounds {
    pub(crate) fn new(footer: &Footer, states: usize) -> Self {
        Self { states: states as u16, groups: footer.groups }
    }
}

impl Walk {
    pub(crate) fn new(meta: &BlockMeta) -> Self {
        Self { at: 0, home: None, left: meta.entries }
    }

    /// Where the last entry ended.
    #[inline]
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    /// The next entry, if it is of the kind that most are and belongs where the one before does. Otherwise
    /// [`next`](Self::next) tells.
    #[inline(always)]
    pub(crate) fn next_short<'a>(&mut self, plain: &'a [u8]) -> Option<Short<'a>> {
        let short = Short::read(plain, self.at)?;
        self.left = self.left.checked_sub(1)?;
        self.at = short.end;
        Some(short)
    }

    /// The next entry with its encoded bytes, `None` after the last one.
    #[inline]
    pub(crate) fn next<'a>(&mut self, plain: &'a [u8], bounds: Bounds) -> Result<Option<Located<'a>>> {
        let mut items = Items::new(plain, self.at);
        loop {
            let begin = items.position();
            match items.next()? {
                Some(Item::Mark { state, group }) => {
                    if state >= bounds.states || !bounds.groups.contains(group) {
                        return Err(Error::corrupt("a block holds an unknown state or key group"));
                    }
                    let home = Home { state, group };
                    if self.home.is_some_and(|last| last >= home) {
                        return Err(Error::corrupt("states or key groups in a block are out of order"));
                    }
                    self.home = Some(home);
                }
                Some(Item::Entry(entry)) => {
                    let home =
                        self.home.ok_or_else(|| Error::corrupt("a block does not begin with a mark"))?;
                    self.left = self.left.checked_sub(1).ok_or_else(Self::miscounted)?;
                    self.at = items.position();
                    return Ok(Some((home, entry, &plain[begin..self.at])));
                }
                None if self.left > 0 => return Err(Self::miscounted()),
                None => return Ok(None),
            }
        }
    }

    #[cold]
    fn miscounted() -> Error {
        Error::corrupt("a block holds another number of entries than the index says")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::entry::push_entry;

    /// Builds blocks of values that are noise or zeros; tells how each was stored.
    fn stored(how: RunCompression, noisy: impl IntoIterator<Item = bool>) -> Vec<Compression> {
        let mut builder = BlockBuilder::new(how).expect("zstd is there");
        let (mut out, mut opener, mut found) = (Vec::new(), Opener::default(), Vec::new());
        for (number, noisy) in (0_u64..).zip(noisy) {
            let mut noise = number + 1;
            let mut value = vec![0_u8; 1 << 16];
            for byte in value.iter_mut().filter(|_| noisy) {
                noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                *byte = (noise >> 56) as u8;
            }
            let mut bytes = Vec::new();
            let key = number.to_be_bytes();
            push_entry(
                &mut bytes,
                &Entry { kind: crate::EntryKind::Put, key: &key, sub: &[], value: &value },
            );
            builder.push(0, KeyGroup(0), &bytes);
            let begin = out.len();
            let meta = builder.close(begin as u64, &mut out).expect("it is small");
            let plain = opener.open(&meta, &out[begin..]).expect("it is whole");
            assert!(plain.ends_with(&bytes), "block {number}");
            found.push(meta.compression);
        }
        found
    }

    #[test]
    fn what_does_not_compress_is_seldom_tried() {
        let tries = |noisy: usize| {
            // After so much noise, how long it takes until zeros are compressed again.
            let found = stored(RunCompression::Zstd, (0..noisy + 20).map(|number| number < noisy));
            assert_eq!(found[..noisy], vec![Compression::Raw; noisy]);
            let first =
                found.iter().position(|it| *it == Compression::Zstd).expect("zeros are tried at last");
            assert!(found[first..].iter().all(|it| *it == Compression::Zstd));
            first - noisy
        };
        assert_eq!(tries(0), 0);
        assert_eq!(tries(1), 1);
        // Tried are the blocks 0, 2, 5, 10, 19, 36, 53, ...
        assert_eq!(tries(3), 2);
        assert_eq!(tries(20), 16);
        assert_eq!(tries(54), 16);
    }

    /// One value makes up a block: it is compressed as it is, and padded where it would become too small.
    #[test]
    fn large_values_are_compressed_within_bounds() {
        for (len, what, least) in [
            (MAX_COLUMNS_LEN - 100, Compression::Zstd, 0),
            (MAX_COLUMNS_LEN, Compression::ZstdRows, 0),
            (300 << 10, Compression::ZstdRows, 0),
            (2 << 20, Compression::ZstdRows, (2 << 20) / 3),
        ] {
            let mut builder = BlockBuilder::new(RunCompression::Zstd).expect("zstd is there");
            let mut bytes = Vec::new();
            let value = vec![7; len];
            let entry = Entry { kind: crate::EntryKind::Put, key: b"k", sub: &[], value: &value };
            push_entry(&mut bytes, &entry);
            builder.push(0, KeyGroup(0), &bytes);
            let mut out = Vec::new();
            let meta = builder.close(16, &mut out).expect("it is small");
            assert_eq!(meta.compression, what, "{len}");
            assert!(out.len() >= least && out.len() < least + 500, "{len}: {}", out.len());
            let plain = Opener::default().open(&meta, &out).expect("it is whole");
            assert!(plain.ends_with(&bytes), "{len}");
            // A frame that holds more than the index says.
            let lying = BlockMeta { plain_len: meta.plain_len - 1, ..meta };
            assert!(Opener::default().open(&lying, &out).is_err(), "{len}");
        }
    }

    #[test]
    fn without_compression_every_block_is_raw() {
        let found = stored(RunCompression::None, [false, true, false, false]);
        assert_eq!(found, vec![Compression::Raw; 4]);
    }
}
