//! The index section of a run: for each block where it lies, its checksum, how much is in it, and what it begins with.

use std::ops::RangeInclusive;

use types::{Error, KeyGroup, KeyGroupRange, Result};

use super::{
    bytes::{Cursor, push_counted},
    columns::MIN_ENTRY,
    footer::{Footer, HEADER_LEN},
};

/// How a block's bytes are stored. The numbers are part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Compression {
    Raw = 0,
    /// Of columns.
    Zstd = 1,
    /// Of the items as they are.
    ZstdRows = 2,
}

/// A block, as the index describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BlockMeta {
    pub(crate) offset: u64,
    pub(crate) stored_len: u32,
    pub(crate) plain_len: u32,
    /// Of the stored bytes.
    pub(crate) crc: u32,
    pub(crate) entries: u32,
    pub(crate) compression: Compression,
    /// Of the first entry.
    pub(crate) state: u16,
    /// Of the first entry.
    pub(crate) group: KeyGroup,
    /// The first [`MAX_FIRST_KEY`] bytes of the first entry's key.
    pub(crate) first_key: Box<[u8]>,
}

/// How much of a block's first key stands in the index.
pub(crate) const MAX_FIRST_KEY: usize = 64;

/// The greatest plain length of a block of columns, of which a reader needs two and a half times as much memory. Longer
/// ones are nearly all one entry, for which columns do nothing.
pub(crate) const MAX_COLUMNS_LEN: usize = 128 << 10;
/// A block of up to this length may be compressed however well; a longer one only by up to [`MAX_RATIO`], so that neither
/// damage nor malice can make a reader allocate much more than is there.
const FREE_PLAIN_LEN: usize = 384 << 10;
/// See [`FREE_PLAIN_LEN`].
const MAX_RATIO: usize = 3;
/// What the index says of a block with an empty first key.
const MIN_META: usize = 33;

/// The least length that a block of this plain length may have once it is compressed.
pub(crate) fn least_stored_len(plain_len: usize) -> usize {
    if plain_len <= FREE_PLAIN_LEN { 1 } else { plain_len.div_ceil(MAX_RATIO) }
}

impl BlockMeta {
    pub(crate) fn end(&self) -> u64 {
        self.offset + u64::from(self.stored_len)
    }
}

pub(crate) fn encode(blocks: &[BlockMeta]) -> Vec<u8> {
    let mut out = Vec::with_capacity(blocks.len() * 64);
    for block in blocks {
        out.extend_from_slice(&block.offset.to_le_bytes());
        for number in [block.stored_len, block.plain_len, block.crc, block.entries] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.push(block.compression as u8);
        out.extend_from_slice(&block.state.to_le_bytes());
        out.extend_from_slice(&block.group.0.to_le_bytes());
        push_counted(&mut out, &block.first_key);
    }
    out
}

/// Reads the index and checks that its blocks fill the file from the header to the schema section.
pub(crate) fn decode(bytes: &[u8], footer: &Footer, states: usize) -> Result<Vec<BlockMeta>> {
    let mut cursor = Cursor::new(bytes);
    if footer.blocks as usize > bytes.len() / MIN_META {
        return Err(Error::corrupt("index and footer do not fit each other"));
    }
    let mut blocks: Vec<BlockMeta> = Vec::with_capacity(footer.blocks as usize);
    let mut end = HEADER_LEN;
    let (mut entries, mut plain) = (0_u64, 0_u64);
    for number in 0..footer.blocks {
        let block = take_block(&mut cursor)?;
        let wrong =
            |what: &str| Err(Error::corrupt(format!("index describes block {number} wrongly: {what}")));
        if block.offset != end {
            return wrong("it does not follow the block before");
        }
        let (stored_len, plain_len) = (block.stored_len as usize, block.plain_len as usize);
        let allowed = match block.compression {
            Compression::Raw => stored_len == plain_len,
            Compression::Zstd => plain_len <= MAX_COLUMNS_LEN,
            Compression::ZstdRows => stored_len >= least_stored_len(plain_len),
        };
        if !allowed || stored_len == 0 || plain_len / MIN_ENTRY < block.entries as usize {
            return wrong("its lengths do not fit each other");
        }
        if usize::from(block.state) >= states || !footer.groups.contains(block.group) {
            return wrong("its first entry has an unknown state or key group");
        }
        if blocks.last().is_some_and(|last| (last.state, last.group) > (block.state, block.group)) {
            return wrong("it is out of order");
        }
        end = block.end();
        entries += u64::from(block.entries);
        plain += u64::from(block.plain_len);
        blocks.push(block);
    }
    cursor.finish()?;
    if end != footer.schema.offset || entries != footer.totals.entries || plain < footer.totals.plain_bytes {
        return Err(Error::corrupt("index and footer do not fit each other"));
    }
    Ok(blocks)
}

fn take_block(cursor: &mut Cursor<'_>) -> Result<BlockMeta> {
    let offset = cursor.u64()?;
    let (stored_len, plain_len) = (cursor.u32()?, cursor.u32()?);
    let (crc, entries) = (cursor.u32()?, cursor.u32()?);
    let compression = match cursor.u8()? {
        0 => Compression::Raw,
        1 => Compression::Zstd,
        2 => Compression::ZstdRows,
        other => return Err(Error::corrupt(format!("unknown compression {other}"))),
    };
    let (state, group) = (cursor.u16()?, KeyGroup(cursor.u16()?));
    let first_key = cursor.counted()?;
    if first_key.len() > MAX_FIRST_KEY {
        return Err(Error::corrupt("index holds a key that is too long"));
    }
    let first_key = first_key.into();
    Ok(BlockMeta { offset, stored_len, plain_len, crc, entries, compression, state, group, first_key })
}

/// Whether block `number` may hold entries of the key groups `wanted`.
pub(crate) fn may_hold(blocks: &[BlockMeta], number: usize, wanted: KeyGroupRange) -> bool {
    let touches = |groups: RangeInclusive<u16>| {
        !wanted.is_empty() && *groups.start() < wanted.end && wanted.start <= *groups.end()
    };
    let block = &blocks[number];
    match blocks.get(number + 1) {
        Some(next) if next.state == block.state => touches(block.group.0..=next.group.0),
        Some(next) => {
            next.state > block.state + 1 || touches(block.group.0..=u16::MAX) || touches(0..=next.group.0)
        }
        None => true,
    }
}
