//! Reading a run: its footer, schema and index first, then windows of neighbouring blocks, each checked before use.
//!
//! Every error names the file and the place in it.

use std::ops::Range;

use bytes::Bytes;
use env::Store;
use types::{Error, KeyGroupRange, Result, Run};

use super::{
    block::{self, Bounds, Opener, Walk},
    footer::{FOOTER_LEN, Footer, HEADER_LEN, Section, check_header},
    index::{self, BlockMeta},
    schema::Schema,
};

/// How much of the end of a file is read at once: enough for footer, schema and index of most runs.
const TAIL_LEN: u64 = 64 << 10;
/// About how many stored bytes a window has. Few in tests, so that small runs have several windows.
const WINDOW_LEN: u64 = if cfg!(test) { 16 << 10 } else { 1 << 20 };

/// An opened run.
#[derive(Clone, Debug)]
pub(crate) struct RunReader {
    path: String,
    pub(crate) footer: Footer,
    pub(crate) schema: Schema,
    pub(crate) index: Vec<BlockMeta>,
}

/// Neighbouring blocks as they are stored.
pub(crate) struct Window {
    path: String,
    bounds: Bounds,
    blocks: Vec<BlockMeta>,
    bytes: Bytes,
}

/// A block whose bytes were checked and decompressed.
pub(crate) struct PlainBlock {
    path: String,
    offset: u64,
    pub(crate) bounds: Bounds,
    pub(crate) plain: Vec<u8>,
    pub(crate) walk: Walk,
}

/// An error about a place in a file of a checkpoint, with what to do.
pub(crate) fn at(path: &str, offset: u64) -> impl Fn(Error) -> Error {
    move |error| match error.kind() {
        types::ErrorKind::Corrupt => {
            let message = format!(
                "{path}, offset {offset}: {}; restore another checkpoint or savepoint",
                error.message()
            );
            Error::corrupt(message)
        }
        _ => error.context(format!("{path}, offset {offset}")),
    }
}

impl RunReader {
    /// Reads and checks all of a run but its blocks.
    ///
    /// # Errors
    /// `Corrupt` if the file is missing, damaged, or not the one that `run` describes.
    pub(crate) async fn open(store: &dyn Store, run: &Run) -> Result<Self> {
        let path = &run.file.path;
        let len = run.file.len;
        let Some(footer_at) = len.checked_sub(FOOTER_LEN).filter(|at| *at >= HEADER_LEN) else {
            return Err(at(path, 0)(Error::corrupt(format!(
                "the manifest gives it a length of {len} bytes"
            ))));
        };
        let tail_at = len.saturating_sub(TAIL_LEN);
        // One byte more than there should be, to notice a file that is too long.
        let tail = read(store, path, tail_at..len + 1).await?;
        if tail.len() as u64 != len - tail_at {
            let found = tail_at + tail.len() as u64;
            let but = if found < len { format!("it ends at {found}") } else { "it is longer".to_owned() };
            return Err(at(path, len)(Error::corrupt(format!("the file should be {len} bytes long, {but}"))));
        }
        let tail = Piece { at: tail_at, bytes: tail };
        let footer = Footer::decode(tail.part(footer_at, FOOTER_LEN)).and_then(|footer| {
            footer.check(run)?;
            Ok(footer)
        });
        let footer = footer.map_err(at(path, footer_at))?;
        let header = tail.or_read(store, path, 0, HEADER_LEN).await?;
        check_header(&header).map_err(at(path, 0))?;
        let schema = section(store, path, &tail, footer.schema).await?;
        let schema = Schema::decode(&schema).map_err(at(path, footer.schema.offset))?;
        if schema.totals() != footer.totals {
            return Err(at(path, footer.schema.offset)(Error::corrupt(
                "schema and footer do not fit each other",
            )));
        }
        let index = section(store, path, &tail, footer.index).await?;
        let index =
            index::decode(&index, &footer, schema.states.len()).map_err(at(path, footer.index.offset))?;
        Ok(Self { path: path.clone(), footer, schema, index })
    }

    /// The blocks that may hold entries of the key groups `wanted`, as ranges that are read together.
    pub(crate) fn windows(&self, wanted: KeyGroupRange) -> Vec<Range<usize>> {
        self.windows_of(|number| index::may_hold(&self.index, number, wanted))
    }

    /// The blocks that are wanted, as ranges that are read together.
    pub(crate) fn windows_of(&self, wanted: impl Fn(usize) -> bool) -> Vec<Range<usize>> {
        let mut windows: Vec<Range<usize>> = Vec::new();
        for number in (0..self.index.len()).filter(|number| wanted(*number)) {
            match windows.last_mut() {
                Some(last)
                    if last.end == number
                        && self.index[number].end() - self.index[last.start].offset <= WINDOW_LEN =>
                {
                    last.end = number + 1;
                }
                _ => windows.push(number..number + 1),
            }
        }
        windows
    }

    /// The length of neighbouring blocks in the file.
    pub(crate) fn stored_len(&self, window: &Range<usize>) -> u64 {
        self.index[window.clone()].iter().map(|block| u64::from(block.stored_len)).sum()
    }

    /// Reads any bytes of the file.
    pub(crate) async fn bytes(&self, store: &dyn Store, range: Range<u64>) -> Result<Bytes> {
        read(store, &self.path, range).await
    }

    /// Reads the stored bytes of neighbouring blocks.
    pub(crate) async fn read(&self, store: &dyn Store, window: Range<usize>) -> Result<Window> {
        let blocks = self.index[window].to_vec();
        let (Some(first), Some(last)) = (blocks.first(), blocks.last()) else {
            return Err(Error::internal(format!("{}: a window without blocks", self.path)));
        };
        let bytes = read(store, &self.path, first.offset..last.end()).await?;
        let bounds = Bounds::new(&self.footer, self.schema.states.len());
        Ok(Window { path: self.path.clone(), bounds, blocks, bytes })
    }

    /// Reads the next of some windows, if there is one.
    pub(crate) async fn read_next(
        &self,
        store: &dyn Store,
        windows: &mut (impl Iterator<Item = Range<usize>> + Send),
    ) -> Result<Option<Window>> {
        match windows.next() {
            Some(window) => self.read(store, window).await.map(Some),
            None => Ok(None),
        }
    }
}

impl Window {
    /// Checks and decompresses one block after the other. Computes: call it away from the tasks.
    pub(crate) fn into_blocks(self) -> impl Iterator<Item = Result<PlainBlock>> {
        let Self { path, bounds, blocks, bytes } = self;
        let begin = blocks.first().map_or(0, |first| first.offset);
        let mut opener = Opener::default();
        blocks.into_iter().map(move |meta| {
            let stored = stored(&bytes, begin, &meta);
            let plain = opener.open(&meta, stored).map_err(at(&path, meta.offset))?;
            let walk = Walk::new(&meta);
            Ok(PlainBlock { path: path.clone(), offset: meta.offset, bounds, plain, walk })
        })
    }

    /// Checks the blocks as they are stored, and says how many there are. Computes, as [`into_blocks`](Self::into_blocks).
    ///
    /// # Errors
    /// `Corrupt` naming file and place.
    pub(crate) fn check(&self) -> Result<u64> {
        let begin = self.blocks.first().map_or(0, |first| first.offset);
        for meta in &self.blocks {
            block::check_stored(meta, stored(&self.bytes, begin, meta))
                .map_err(at(&self.path, meta.offset))?;
        }
        Ok(self.blocks.len() as u64)
    }

    /// The stored bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// The bytes of a block in those of its window, as far as they are there.
fn stored<'a>(bytes: &'a [u8], begin: u64, meta: &BlockMeta) -> &'a [u8] {
    let from = (meta.offset - begin) as usize;
    let until = (from + meta.stored_len as usize).min(bytes.len());
    bytes.get(from..until).unwrap_or_default()
}

impl PlainBlock {
    /// The next entry with its encoded bytes, `None` after the last one.
    ///
    /// # Errors
    /// `Corrupt`; [`blame`](Self::blame) says where.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<block::Located<'_>>> {
        self.walk.next(&self.plain, self.bounds)
    }

    /// Its file, its place in that, and its bytes.
    pub(crate) fn into_plain(self) -> (String, u64, Vec<u8>) {
        (self.path, self.offset, self.plain)
    }

    /// Puts file and place in front of an error about this block.
    pub(crate) fn blame(&self, error: Error) -> Error {
        at(&self.path, self.offset)(error)
    }
}

/// The last bytes of a file.
struct Piece {
    at: u64,
    bytes: Bytes,
}

impl Piece {
    /// The `len` bytes at `offset`, which must be in the piece.
    fn part(&self, offset: u64, len: u64) -> &[u8] {
        let from = (offset - self.at) as usize;
        &self.bytes[from..from + len as usize]
    }

    /// The `len` bytes at `offset`, read again if they are not in the piece.
    async fn or_read(&self, store: &dyn Store, path: &str, offset: u64, len: u64) -> Result<Bytes> {
        if offset < self.at {
            return read(store, path, offset..offset + len).await;
        }
        let from = (offset - self.at) as usize;
        Ok(self.bytes.slice(from..from + len as usize))
    }
}

async fn section(store: &dyn Store, path: &str, tail: &Piece, section: Section) -> Result<Bytes> {
    let bytes = tail.or_read(store, path, section.offset, u64::from(section.len)).await?;
    if bytes.len() != section.len as usize || crc32fast::hash(&bytes) != section.crc {
        return Err(at(path, section.offset)(Error::corrupt("section checksum does not match")));
    }
    Ok(bytes)
}

async fn read(store: &dyn Store, path: &str, range: Range<u64>) -> Result<Bytes> {
    let offset = range.start;
    let found = store.get_range(path, range).await?;
    found.ok_or_else(|| at(path, offset)(Error::corrupt(format!("the file is missing in {}", store.url()))))
}
