//! Reads the lines of one split, a chunk ahead of the parser.
//!
//! The buffer holds the bytes from [`WINDOW`] before the next line (for the position's checksum) up to what was read.
//! The invariant that makes `read` cancel-safe: `at` moves and records are emitted between two awaits, never across one;
//! the chunk under way is kept in the reader and not in the future.

use std::{collections::VecDeque, sync::Arc};

use engine::api::source::{ReadStatus, SourceOutput, SplitReader};
use env::Env;
use memchr::memchr;
use types::{Digest, Error, Result, Timestamp};

use super::{input::InputFile, split::FileSplit};
use crate::background::Background;

/// Bytes read at a time.
const CHUNK: u64 = 1 << 20;
/// Bytes read at a time for the rest of the last line, which lies behind the split's end.
const TAIL_CHUNK: u64 = 64 << 10;

/// How lines are read.
#[derive(Clone, Copy, Debug)]
pub(super) struct LineOptions {
    pub(super) max_line: usize,
    pub(super) lossy: bool,
}

impl Default for LineOptions {
    fn default() -> Self {
        Self { max_line: 1 << 20, lossy: false }
    }
}

/// Takes the records of one line.
pub struct LineOutput<'a, 'b, T> {
    out: &'a mut SourceOutput<'b, T>,
    /// Records of this line for which the batch has no room.
    overflow: &'a mut VecDeque<(T, Option<Timestamp>)>,
    /// Records of this line that were emitted before the failure.
    skip: u64,
    /// Records of this line emitted up to now, skipped ones included.
    emitted: u64,
}

impl<T> LineOutput<'_, '_, T> {
    /// Emits a record without event time.
    #[inline]
    pub fn emit(&mut self, value: T) {
        self.put(value, None);
    }

    /// Emits a record with its event time.
    #[inline]
    pub fn emit_at(&mut self, value: T, time: Timestamp) {
        self.put(value, Some(time));
    }

    /// Notes that the emitted records hold `bytes` on the heap, so that channels are bounded by them.
    #[inline]
    pub fn add_bytes(&mut self, bytes: usize) {
        self.out.add_bytes(bytes);
    }

    #[inline]
    fn put(&mut self, value: T, time: Option<Timestamp>) {
        if self.emitted < self.skip {
            self.emitted += 1;
        } else if self.out.room() > 0 {
            self.emitted += 1;
            emit(self.out, value, time);
        } else {
            self.overflow.push_back((value, time));
        }
    }
}

#[inline]
fn emit<T>(out: &mut SourceOutput<'_, T>, value: T, time: Option<Timestamp>) {
    match time {
        None => out.emit(value),
        Some(time) => out.emit_at(value, time),
    }
}

/// What stands in the buffer next.
enum Next {
    /// A line: where its text ends, and where the line after it begins.
    Line { text_end: usize, end: usize },
    /// Part of a line.
    Incomplete,
    /// No more line of this split.
    End,
}

/// Reads the lines of one split.
pub struct FileReader<T, F> {
    env: Env,
    file: Arc<InputFile>,
    parse: F,
    options: LineOptions,
    split: FileSplit,
    buffer: Vec<u8>,
    /// The place of the buffer's first byte in the file.
    base: u64,
    /// Where the next line begins in the buffer.
    at: usize,
    /// No line ends between `at` and here.
    searched: usize,
    /// Whether `at` stands in a line that belongs to the split before this one.
    in_foreign_line: bool,
    /// The chunk under way.
    reading: Option<Background<Vec<u8>>>,
    /// An empty buffer for the next chunk.
    spare: Vec<u8>,
    /// The records of the line at `at` that had no room, and where that line ends.
    overflow: VecDeque<(T, Option<Timestamp>)>,
    overflow_end: usize,
}

impl<T, F> FileReader<T, F>
where
    T: Send + 'static,
    F: Fn(&str, &mut LineOutput<'_, '_, T>) -> Result<()> + Send + 'static,
{
    pub(super) async fn open(env: &Env, split: FileSplit, parse: F, options: LineOptions) -> Result<Self> {
        let (files, wanted) = (env.files(), split.clone());
        let (file, buffer) =
            env.blocking("file source open", move || InputFile::open(&*files, &wanted)).await??;
        let at = buffer.len();
        let base = FileSplit::window_start(split.offset);
        let mut reader = Self {
            env: env.clone(),
            file: Arc::new(file),
            parse,
            options,
            buffer,
            base,
            at,
            searched: at,
            in_foreign_line: false,
            reading: None,
            spare: Vec::new(),
            overflow: VecDeque::new(),
            overflow_end: at,
            split,
        };
        if reader.split.offset == reader.split.start && reader.split.start > 0 {
            // A line begins at the start only if the byte before it ends one.
            reader.in_foreign_line = true;
            reader.at -= 1;
            reader.searched = reader.at;
        }
        reader.read_ahead();
        Ok(reader)
    }

    /// How many bytes of the file are held in memory: at most the longest line and about 2 MiB.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.buffer.len() + self.spare.capacity()
    }

    /// Where the buffer ends in the file.
    fn read_to(&self) -> u64 {
        self.base + self.buffer.len() as u64
    }

    fn offset(&self) -> u64 {
        if self.in_foreign_line { self.split.start } else { self.base + self.at as u64 }
    }

    /// Starts to read the next chunk.
    fn read_ahead(&mut self) {
        let from = self.read_to();
        let longest = if from < self.split.end { CHUNK } else { TAIL_CHUNK };
        let len = usize::try_from(longest.min(self.split.len - from)).expect("a chunk fits into memory");
        let (file, mut chunk) = (Arc::clone(&self.file), std::mem::take(&mut self.spare));
        self.reading = Some(Background::start(&self.env, "file source read", move || {
            chunk.resize(len, 0);
            file.read_exact(from, &mut chunk)?;
            Ok(chunk)
        }));
    }

    /// Waits for the next chunk. Cancel-safe.
    async fn more(&mut self) -> Result<()> {
        if self.reading.is_none() {
            self.read_ahead();
        }
        let chunk = match &mut self.reading {
            Some(reading) => reading.await,
            None => Ok(Vec::new()),
        };
        self.reading = None;
        let chunk = chunk?;
        self.append(&chunk);
        self.spare = chunk;
        if self.read_to() < self.split.end {
            self.read_ahead();
        }
        Ok(())
    }

    fn append(&mut self, chunk: &[u8]) {
        let keep_from =
            usize::try_from(FileSplit::window_start(self.at as u64)).expect("no greater than an index");
        self.buffer.drain(..keep_from);
        self.base += keep_from as u64;
        self.at -= keep_from;
        self.searched -= keep_from;
        self.buffer.extend_from_slice(chunk);
    }

    fn next_line(&mut self) -> Result<Next> {
        loop {
            let at_end = self.read_to() == self.split.len;
            let found = memchr(b'\n', &self.buffer[self.searched..]).map(|place| self.searched + place);
            if self.in_foreign_line {
                let Some(end) = found else {
                    // However long it is, it need not be kept.
                    self.at = self.buffer.len();
                    self.searched = self.at;
                    let none_begins = at_end || self.read_to() >= self.split.end;
                    return Ok(if none_begins { Next::End } else { Next::Incomplete });
                };
                self.in_foreign_line = false;
                self.at = end + 1;
                self.searched = self.at;
                continue;
            }
            if self.offset() >= self.split.end {
                return Ok(Next::End);
            }
            let next = match found {
                Some(end) => Next::Line { text_end: end, end: end + 1 },
                None if at_end => Next::Line { text_end: self.buffer.len(), end: self.buffer.len() },
                None => Next::Incomplete,
            };
            self.check_length(&next)?;
            self.searched = found.unwrap_or(self.buffer.len());
            return Ok(next);
        }
    }

    fn check_length(&self, next: &Next) -> Result<()> {
        let len = match next {
            Next::Line { text_end, .. } => self.text(*text_end).len(),
            // The last byte may be the `\r` of a line end.
            _ => (self.buffer.len() - self.at).saturating_sub(1),
        };
        if len <= self.options.max_line {
            return Ok(());
        }
        Err(Error::bad_input(format!(
            "input file {}: the line at offset {} is longer than {} bytes: mend the file, or allow longer \
             lines (max_line_bytes in code; --max-line-bytes if the program has that flag)",
            self.split.path,
            self.offset(),
            self.options.max_line
        )))
    }

    /// The line's text, without the `\r` of a `\r\n`.
    fn text(&self, end: usize) -> &[u8] {
        let text = &self.buffer[self.at..end];
        if end < self.buffer.len() { text.strip_suffix(b"\r").unwrap_or(text) } else { text }
    }

    /// Emits the records of a line; those without room wait in `overflow`.
    fn emit_line(&mut self, text_end: usize, end: usize, out: &mut SourceOutput<'_, T>) -> Result<()> {
        let skip = self.split.emitted;
        let mut overflow = std::mem::take(&mut self.overflow);
        let mut line = LineOutput { out, overflow: &mut overflow, skip, emitted: 0 };
        let text = self.text(text_end);
        let parsed = match str::from_utf8(text) {
            Ok(text) => (self.parse)(text, &mut line),
            Err(_) if self.options.lossy => (self.parse)(&String::from_utf8_lossy(text), &mut line),
            Err(error) => return Err(self.not_utf8(error.valid_up_to())),
        };
        let emitted = line.emitted;
        parsed.map_err(|error| {
            error.context(format!("input file {}, line at offset {}", self.split.path, self.offset()))
        })?;
        if emitted < skip {
            return Err(Error::user(format!(
                "input file {}: the line at offset {} gave at least {skip} records before the failure and {emitted} \
                 now: its function must make the same records of the same line every time",
                self.split.path,
                self.offset()
            )));
        }
        self.overflow = overflow;
        self.split.emitted = emitted;
        self.overflow_end = end;
        self.settle();
        Ok(())
    }

    /// Emits records that had no room before.
    fn emit_overflow(&mut self, out: &mut SourceOutput<'_, T>) {
        while out.room() > 0
            && let Some((value, time)) = self.overflow.pop_front()
        {
            emit(out, value, time);
            self.split.emitted += 1;
        }
        self.settle();
    }

    /// Goes on to the next line if nothing of this one is left.
    fn settle(&mut self) {
        if self.overflow.is_empty() {
            self.at = self.overflow_end;
            self.searched = self.searched.max(self.at);
            self.split.emitted = 0;
        }
    }

    fn not_utf8(&self, at: usize) -> Error {
        Error::bad_input(format!(
            "input file {}: byte {:#04x} at offset {} is not UTF-8: convert the file, or have such bytes \
             replaced (lossy() in code; --lossy if the program has that flag)",
            self.split.path,
            self.buffer[self.at + at],
            self.offset() + at as u64
        ))
    }
}

impl<T, F> SplitReader for FileReader<T, F>
where
    T: Send + 'static,
    F: Fn(&str, &mut LineOutput<'_, '_, T>) -> Result<()> + Send + Sync + 'static,
{
    type Out = T;
    type Split = FileSplit;

    async fn read(&mut self, out: &mut SourceOutput<'_, T>) -> Result<ReadStatus> {
        let room = out.room();
        if !self.overflow.is_empty() {
            self.emit_overflow(out);
        }
        while out.room() > 0 {
            match self.next_line()? {
                Next::Line { text_end, end } => self.emit_line(text_end, end, out)?,
                _ if out.room() < room => break,
                Next::End => return Ok(ReadStatus::End),
                Next::Incomplete => self.more().await?,
            }
        }
        Ok(ReadStatus::More)
    }

    fn position(&self) -> FileSplit {
        let offset = self.offset();
        // What is between the window and the line of another split that is being passed over need not be there.
        let window_start = FileSplit::window_start(offset);
        let end = usize::try_from(offset.saturating_sub(self.base)).unwrap_or(usize::MAX);
        let start = window_start.checked_sub(self.base).and_then(|start| usize::try_from(start).ok());
        let window = start.and_then(|start| self.buffer.get(start..end)).map(Digest::of);
        FileSplit { offset, window: window.or(self.split.window), ..self.split.clone() }
    }
}
