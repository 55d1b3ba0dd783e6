//! Rows that are printed as they come, however many there are: as a table, as one JSON list of objects, or as CSV. What is
//! kept of them is bounded: the first rows of a table, from which the widths of its columns are taken.

use clap::ValueEnum;
use serde::{Serialize, Serializer, ser::SerializeMap};
use types::{Error, Result, ShapedValue, Timestamp};
use unicode_width::UnicodeWidthStr;

use crate::{format::time, output::Output};

/// How rows look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns for people.
    Table,
    /// One list of objects, one on each line.
    Json,
    /// Comma-separated values with a header; what is not a text or a number as JSON.
    Csv,
}

/// What stands in a column of a row.
#[derive(Clone, Debug)]
pub(crate) enum Cell {
    Value(ShapedValue),
    /// A word of ours, which needs no quotes.
    Word(String),
    Nothing,
}

impl Cell {
    /// A time, as all others are written.
    pub(crate) fn time(at: Option<Timestamp>) -> Self {
        at.map_or(Self::Nothing, |at| Self::Word(time(at)))
    }

    /// For people: values in the manner of Rust, so that every row is one line.
    fn text(&self) -> String {
        match self {
            Self::Value(value) => value.to_string(),
            Self::Word(word) => word.clone(),
            Self::Nothing => "-".to_owned(),
        }
    }

    /// For CSV: a text as it is, anything else as JSON.
    fn plain(&self) -> Result<String> {
        match self {
            Self::Value(ShapedValue::Str(text)) | Self::Word(text) => Ok(text.clone()),
            Self::Nothing => Ok(String::new()),
            Self::Value(value) => match serde_json::to_value(value).map_err(not_json)? {
                serde_json::Value::String(text) => Ok(text),
                _ => serde_json::to_string(value).map_err(not_json),
            },
        }
    }
}

impl Serialize for Cell {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Value(value) => value.serialize(serializer),
            Self::Word(word) => serializer.serialize_str(word),
            Self::Nothing => serializer.serialize_none(),
        }
    }
}

/// A row as an object.
struct Object<'a>(&'a [&'static str], &'a [Cell]);

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, cell) in self.0.iter().zip(self.1) {
            map.serialize_entry(name, cell)?;
        }
        map.end()
    }
}

fn not_json(error: serde_json::Error) -> Error {
    Error::internal("a row cannot be said in JSON").with_source(error)
}

/// So many rows say how wide the columns of a table are.
const SAMPLE: usize = 500;
/// No column is filled up to more than this; longer cells push what follows them.
const MAX_WIDTH: usize = 60;
/// Written at once, in bytes.
const PIECE: usize = 64 << 10;

/// Each row has a buffer of this length in bytes, which is filled with zeros first.
const CSV_BUFFER: usize = 256;

/// Prints rows.
pub(crate) struct Rows<'a> {
    output: &'a mut Output,
    format: Format,
    columns: &'a [&'static str],
    /// What is not written yet.
    piece: Vec<u8>,
    /// The first rows of a table.
    sample: Vec<Vec<String>>,
    /// Of the columns of a table, once they are known.
    widths: Option<Vec<usize>>,
    rows: u64,
}

impl<'a> Rows<'a> {
    /// `columns` are the fields of an object: words joined by `_`.
    pub(crate) fn new(output: &'a mut Output, format: Format, columns: &'a [&'static str]) -> Self {
        Self { output, format, columns, piece: Vec::new(), sample: Vec::new(), widths: None, rows: 0 }
    }

    /// Prints a row, of one cell for each column.
    ///
    /// # Errors
    /// `Internal` if it cannot be said in this format.
    pub(crate) fn push(&mut self, cells: &[Cell]) -> Result<()> {
        match self.format {
            Format::Table => self.table_row(cells.iter().map(Cell::text).collect()),
            Format::Json => {
                self.piece.extend_from_slice(if self.rows == 0 { b"[\n" } else { b",\n" });
                serde_json::to_writer(&mut self.piece, &Object(self.columns, cells)).map_err(not_json)?;
            }
            Format::Csv => {
                if self.rows == 0 {
                    self.csv(self.columns.iter().map(|name| Ok((*name).to_owned())))?;
                }
                self.csv(cells.iter().map(Cell::plain))?;
            }
        }
        self.rows += 1;
        if self.piece.len() >= PIECE {
            self.flush();
        }
        Ok(())
    }

    /// How many rows there were.
    pub(crate) fn count(&self) -> u64 {
        self.rows
    }

    /// Whether somebody reads what is written.
    pub(crate) fn has_reader(&self) -> bool {
        self.output.has_reader()
    }

    fn csv(&mut self, cells: impl Iterator<Item = Result<String>>) -> Result<()> {
        let mut writer = csv::WriterBuilder::new().buffer_capacity(CSV_BUFFER).from_writer(&mut self.piece);
        let record = cells.collect::<Result<Vec<_>>>()?;
        let written = writer.write_record(record).and_then(|()| Ok(writer.flush()?));
        written.map_err(|error| Error::internal("a row cannot be said in CSV").with_source(error))
    }

    fn table_row(&mut self, cells: Vec<String>) {
        if self.widths.is_some() {
            return self.line(&cells);
        }
        self.sample.push(cells);
        if self.sample.len() == SAMPLE {
            self.settle();
        }
    }

    /// Takes the widths of the columns from the first rows, and prints those.
    fn settle(&mut self) {
        let head: Vec<String> =
            self.columns.iter().map(|name| name.replace('_', " ").to_uppercase()).collect();
        let mut widths = vec![0; head.len()];
        for row in [&head].into_iter().chain(&self.sample) {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.width().min(MAX_WIDTH).max(*width);
            }
        }
        self.widths = Some(widths);
        self.line(&head);
        for row in std::mem::take(&mut self.sample) {
            self.line(&row);
        }
    }

    fn line(&mut self, cells: &[String]) {
        let widths = self.widths.as_deref().unwrap_or_default();
        let mut line = String::new();
        for (cell, width) in cells.iter().zip(widths) {
            // Of a terminal's columns, of which a character may take two or none.
            let fill = width.saturating_sub(cell.width()) + 2;
            line += cell;
            line.extend(std::iter::repeat_n(' ', fill));
        }
        self.piece.extend_from_slice(line.trim_end().as_bytes());
        self.piece.push(b'\n');
    }

    fn flush(&mut self) {
        self.output.write(&self.piece);
        self.piece.clear();
    }

    /// Prints what is left. Where rows are missing, because reading them failed, the list of JSON stays open: nobody takes
    /// it for whole.
    ///
    /// # Errors
    /// `Internal` if the header cannot be said in this format.
    pub(crate) fn end(mut self, is_whole: bool) -> Result<()> {
        match self.format {
            Format::Table if self.widths.is_none() => self.settle(),
            Format::Json if is_whole => {
                self.piece.extend_from_slice(if self.rows == 0 { b"[]\n" } else { b"\n]\n" });
            }
            Format::Csv if self.rows == 0 => {
                self.csv(self.columns.iter().map(|name| Ok((*name).to_owned())))?;
            }
            _ => {}
        }
        self.flush();
        Ok(())
    }
}
