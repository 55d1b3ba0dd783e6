//! `tidegate query`: the live entries of one state, without the job's code.
//!
//! Entries come by key group, then key, then what stands below the key (map key, time, place in the list): the same order at
//! every parallelism and on every backend. Within a key group keys are in the order of their values.

use checkpoint::{
    manifest::{ListPart, OperatorSnapshot, SubtaskSnapshot},
    savepoint::SnapshotLocation,
};
use env::Env;
use serde::Serialize;
use statebackend::{KeySelection, LiveEntry, Selection, StateKind};
use types::{
    Error, KeyGroup, KeyGroupRange, KeyPart, MaxParallelism, Result, Shape, ShapedValue, count, key_hash,
};

use crate::{
    key,
    output::{Output, Report},
    progress::{Bar, waiting},
    rows::{Cell, Format, Rows},
    state::{self, Found, StateReader},
};

/// Arguments.
#[derive(clap::Args)]
#[command(
    after_help = "Entries come by key group, then key, then map key, time or place in the list: the same order at every \
                        parallelism and on every backend. Values of unknown shape are hex. State with a time to live \
                        has the time at which an entry expires. In CSV a text is as it is, and what is neither text nor \
                        number is JSON."
)]
pub(crate) struct Args {
    /// A savepoint, or a checkpoint of a checkpoint directory.
    snapshot: String,
    /// The operator.
    #[arg(long)]
    uid: String,
    /// Its state: keyed, an operator list, timers-event or timers-processing.
    #[arg(long)]
    state: String,
    /// Only what this key has: a text as it is, a number, anything else as JSON.
    #[arg(long, allow_hyphen_values = true)]
    key: Option<String>,
    /// All keys that begin with --key: with these letters, or with these parts of a tuple or fields of a struct.
    #[arg(long, requires = "key")]
    prefix: bool,
    /// Print no more than so many entries.
    #[arg(long, conflicts_with = "count", allow_negative_numbers = true)]
    limit: Option<u64>,
    /// Print only how many keys and entries there are.
    #[arg(long)]
    count: bool,
    /// How entries look; `--json` is `--format json`.
    #[arg(long, value_enum)]
    format: Option<Format>,
}

pub(crate) async fn execute(args: Args, env: &Env, output: &mut Output) -> Result<()> {
    let format = format(args.format, output)?;
    let found = SnapshotLocation::resolve(env, &args.snapshot);
    let location = waiting(env, "looking for the snapshot", found).await?;
    let operator = location.manifest.operator(&args.uid).map_err(|error| error.context(&args.snapshot))?;
    let query = Query { args: &args, env, location: &location, operator, format };
    match state::find(operator, &args.state, &args.snapshot)? {
        Found::Keyed(kind) => query.keyed(kind, output).await,
        Found::List(parts) => query.list(&parts, output),
    }
}

/// How rows look: as `--format` or `--json` says.
///
/// # Errors
/// `InvalidJob` if these contradict each other.
fn format(asked: Option<Format>, output: &mut Output) -> Result<Format> {
    match asked {
        Some(Format::Json) => output.set_json(),
        Some(_) if output.is_json() => {
            return Err(Error::invalid_job("--json and another --format exclude each other: leave one out"));
        }
        _ => {}
    }
    Ok(if output.is_json() { Format::Json } else { asked.unwrap_or(Format::Table) })
}

/// How many there are.
#[derive(Serialize)]
struct Counted {
    /// None of an operator list state, which has no keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<u64>,
    /// Values, elements of lists, entries of maps, timers.
    entries: u64,
}

impl Report for Counted {
    fn text(&self) -> String {
        let keys = self.keys.map(|keys| count(keys, "key") + ", ").unwrap_or_default();
        let entries =
            if self.entries == 1 { "1 entry".to_owned() } else { format!("{} entries", self.entries) };
        format!("{keys}{entries}\n")
    }
}

/// A question, and where it is answered.
struct Query<'a> {
    args: &'a Args,
    env: &'a Env,
    location: &'a SnapshotLocation,
    operator: &'a OperatorSnapshot,
    format: Format,
}

impl Query<'_> {
    async fn keyed(&self, kind: StateKind, output: &mut Output) -> Result<()> {
        let key_shape = state::key_shape(self.operator)?;
        let selection = self.selection(key_shape.as_ref())?;
        let mut reader = StateReader::new(self.env, &*self.location.store, self.operator, selection);
        let of_operator = |error: Error| error.context(format!("operator {}", self.operator.uid));
        let is_watched = self.args.count || !output.is_terminal();
        let mut bar = is_watched.then(|| Bar::new(self.env, "reading runs"));
        let mut progress = |reader: &StateReader<'_>| {
            let (done, total) = reader.progress();
            if let Some(bar) = &mut bar {
                bar.at(done, total);
            }
        };
        if self.args.count {
            let mut counter = Counter::default();
            while let Some(batch) = reader.next().await.map_err(of_operator)? {
                batch.iter().try_for_each(|live| counter.add(&live)).map_err(of_operator)?;
                progress(&reader);
            }
            drop(bar);
            return self.counted(&Counted { keys: Some(counter.keys), entries: counter.entries }, output);
        }
        let expires = state::expires(self.operator, &self.args.state);
        let rows = Rows::new(output, self.format, columns(kind, expires));
        let limit = self.args.limit.unwrap_or(u64::MAX);
        let mut printer = Printer { rows, key_shape, expires, limit, counter: Counter::default() };
        let mut printed = Ok(());
        while printed.is_ok() && printer.wants_more() {
            match reader.next().await {
                Ok(Some(batch)) => {
                    progress(&reader);
                    printed = batch.iter().try_for_each(|live| printer.print(&live));
                }
                Ok(None) => break,
                Err(error) => printed = Err(error),
            }
        }
        let is_empty = printer.counter.keys == 0 && limit > 0;
        printer.rows.end(printed.is_ok())?;
        printed.map_err(of_operator)?;
        if let Some(key) = self.args.key.as_ref().filter(|_| is_empty && self.format == Format::Table) {
            let which = if self.args.prefix { "begins with" } else { "is" };
            output.note(&format!("state {:?} has nothing for a key that {which} {key}", self.args.state));
        }
        Ok(())
    }

    /// All of the state, or what `--key` says.
    fn selection(&self, key_shape: Option<&Shape>) -> Result<Selection> {
        let MaxParallelism(max) = self.location.manifest.max_parallelism;
        let part = if self.args.prefix { KeyPart::Beginning } else { KeyPart::Whole };
        let (mut groups, mut keys) = (KeyGroupRange { start: 0, end: max }, KeySelection::All);
        if let Some(text) = &self.args.key {
            let bytes = key::parse(key_shape, part, text)?;
            if part == KeyPart::Whole {
                let KeyGroup(group) = MaxParallelism(max).key_group(key_hash(&bytes));
                groups = KeyGroupRange { start: group, end: group + 1 };
                keys = KeySelection::One(bytes);
            } else {
                keys = KeySelection::Beginning(bytes);
            }
        }
        Ok(Selection { state: self.args.state.clone(), groups, keys })
    }

    /// An operator list state: its elements by subtask.
    fn list(&self, parts: &[(&SubtaskSnapshot, &ListPart)], output: &mut Output) -> Result<()> {
        let Args { state, key, limit, .. } = self.args;
        if key.is_some() {
            return Err(Error::invalid_job(format!(
                "state {state:?} of operator {} is an operator list and has no keys: leave --key out",
                self.operator.uid
            )));
        }
        if self.args.count {
            let entries = parts.iter().map(|(_, part)| part.elements.len() as u64).sum();
            return self.counted(&Counted { keys: None, entries }, output);
        }
        let mut rows = Rows::new(output, self.format, &["subtask", "index", "value"]);
        let elements = parts.iter().flat_map(|(subtask, part)| {
            part.elements
                .iter()
                .enumerate()
                .map(move |(index, element)| (subtask.subtask, *part, index, element))
        });
        let limit = usize::try_from(limit.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
        let mut printed = Ok(());
        for (subtask, part, index, element) in elements.take(limit) {
            let value = state::list_element(part, element);
            let number = |number: u64| Cell::Value(ShapedValue::Unsigned(number.into()));
            let row = |value| [number(subtask.0.into()), number(index as u64), Cell::Value(value)];
            printed = value.and_then(|value| rows.push(&row(value)));
            if printed.is_err() || !rows.has_reader() {
                break;
            }
        }
        rows.end(printed.is_ok())?;
        printed.map_err(|error| error.context(format!("operator {}, state {state:?}", self.operator.uid)))
    }

    fn counted(&self, counted: &Counted, output: &mut Output) -> Result<()> {
        if self.format != Format::Csv {
            return output.show(counted);
        }
        let mut rows = Rows::new(output, self.format, &["keys", "entries"]);
        let number = |number: u64| Cell::Value(ShapedValue::Unsigned(number.into()));
        rows.push(&[counted.keys.map_or(Cell::Nothing, number), number(counted.entries)])?;
        rows.end(true)
    }
}

/// What a row of a keyed state says; the last column only where it has a time to live.
fn columns(kind: StateKind, expires: bool) -> &'static [&'static str] {
    let columns: &[&str] = match kind {
        StateKind::Map => &["key", "map_key", "value", "expires"],
        StateKind::List => &["key", "index", "value", "expires"],
        StateKind::Timers => return &["key", "time"],
        StateKind::Value | StateKind::Reducing | StateKind::Aggregating => &["key", "value", "expires"],
    };
    &columns[..columns.len() - usize::from(!expires)]
}

/// Counts keys and entries, and the elements of a list.
#[derive(Default)]
struct Counter {
    keys: u64,
    entries: u64,
    /// Of the last key.
    of_key: u64,
    last: Option<(KeyGroup, Vec<u8>)>,
}

impl Counter {
    fn add(&mut self, live: &LiveEntry<'_>) -> Result<()> {
        self.begin(live);
        for value in live.values() {
            value?;
            self.entries += 1;
        }
        Ok(())
    }

    /// Notes the key of an entry.
    fn begin(&mut self, live: &LiveEntry<'_>) {
        let is_last = |(group, key): &(KeyGroup, Vec<u8>)| *group == live.group && key == live.entry.key;
        if !self.last.as_ref().is_some_and(is_last) {
            let mut key = self.last.take().map(|(_, key)| key).unwrap_or_default();
            key.clear();
            key.extend_from_slice(live.entry.key);
            self.last = Some((live.group, key));
            self.keys += 1;
            self.of_key = 0;
        }
    }
}

/// Prints entries.
struct Printer<'a> {
    rows: Rows<'a>,
    key_shape: Option<Shape>,
    expires: bool,
    limit: u64,
    counter: Counter,
}

impl Printer<'_> {
    fn wants_more(&self) -> bool {
        self.rows.count() < self.limit && self.rows.has_reader()
    }

    fn print(&mut self, live: &LiveEntry<'_>) -> Result<()> {
        if !self.wants_more() {
            return Ok(());
        }
        self.counter.begin(live);
        let (spec, entry) = (live.state, live.entry);
        let key = Cell::Value(state::key_value(self.key_shape.as_ref(), entry.key)?);
        for value in live.values() {
            if !self.wants_more() {
                break;
            }
            let value = value?;
            let mut row = match spec.kind {
                StateKind::Timers => vec![key.clone(), Cell::Value(state::below(spec, entry.sub)?)],
                StateKind::Map => {
                    vec![
                        key.clone(),
                        Cell::Value(state::below(spec, entry.sub)?),
                        Cell::Value(state::value(spec, value)?),
                    ]
                }
                StateKind::List => {
                    let index = ShapedValue::Unsigned(self.counter.of_key.into());
                    vec![key.clone(), Cell::Value(index), Cell::Value(state::value(spec, value)?)]
                }
                _ => vec![key.clone(), Cell::Value(state::value(spec, value)?)],
            };
            if self.expires {
                row.push(Cell::time(state::deadline(spec, value)?));
            }
            self.rows.push(&row)?;
            self.counter.of_key += 1;
        }
        Ok(())
    }
}
