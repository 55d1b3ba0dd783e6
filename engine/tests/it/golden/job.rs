//! The job whose snapshots lie in `engine/tests/golden`: every kind of state that a job can have, and what each record must
//! look like behind it. It may never change, or the snapshots would be those of another job.
//!
//! Numbers come in two splits, the even and the odd ones, and go by their last digit: each key's records come from one
//! split, in order, so that what a key's state is after each of them can be said beforehand ([`expected`]).

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use env::Env;
use serde::{Deserialize, Serialize};
use tidegate_engine::{
    api::{
        sink::{CommitOutcome, Committer, Marker, SinkContext, TransactionId, TwoPhaseSink, TwoPhaseWriter},
        source::{Boundedness, ReadStatus, Source, SourceContext, SourceOutput, Split, SplitReader},
    },
    prelude::*,
    record::Batch,
};

/// Numbers in all.
pub(crate) const NUMBERS: u64 = 500;
/// After so many numbers each of the checkpoints is taken.
pub(crate) const STAGES: [u64; 4] = [240, 260, 280, 310];
/// The checkpoint of which there is a savepoint, too: the last one whose sinks have confirmed.
pub(crate) const OF_SAVEPOINT: usize = 2;
/// Event-time timers are for this time and later: no record is as late.
const FAR: i64 = 1_000_000_000;
/// Processing-time timers are for the year 2100.
const FAR_CLOCK: i64 = 4_102_444_800_000;

/// The job. Splits are read as far as the gate is open; output goes to `output`.
pub(crate) fn job(settings: &[(&str, &str)], gate: &Arc<AtomicU64>, output: &Output) -> Job {
    let job = Job::new("golden").max_parallelism(8);
    let always = [("rest", "off"), ("checkpoints.interval", "off")];
    let settings = always.iter().chain(settings);
    let job = settings.fold(job, |job, (name, value)| job.set(name, value).unwrap());
    let kept = job
        .source("numbers", Gated { gate: gate.clone() })
        .watermarks(WatermarkStrategy::monotonous())
        .process("keep", Keep);
    kept.side_output(TOLD).broadcast().process("rules", Rules).sink("nothing", Output::default());
    kept.key_by(|number| format!("key-{}", number % 10))
        .process("everything", Everything)
        .sink("out", output.clone());
    job
}

/// Numbers that all subtasks of `rules` are told.
const TOLD: OutputTag<u64> = OutputTag::new("told");
/// State for a day, which no number is followed by, and all timers are.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// State for a hundred years, which all timers are followed by.
const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// What is written: a number, and what the state of its key was then; or a timer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) number: Option<u64>,
    pub(crate) text: String,
}

// ---------------------------------------------------------------------------------------------------------------------
// What happens to the state of a key.

/// What a number does to the state of its key.
struct Deeds {
    number: u64,
}

impl Deeds {
    fn clears_count(&self) -> bool {
        self.number % 70 < 3
    }

    fn clears_recent(&self) -> bool {
        self.number % 130 < 10
    }

    fn digit(&self) -> u32 {
        (self.number / 10 % 7) as u32
    }

    fn removed_digit(&self) -> Option<u32> {
        (self.number % 30 < 10).then_some((self.number / 30 % 7) as u32)
    }

    fn clears_digits(&self) -> bool {
        self.number % 110 < 10
    }

    fn word(&self) -> String {
        "word ".repeat((self.number * 7 % 5) as usize) + &self.number.to_string()
    }

    fn takes_longest(&self) -> bool {
        self.number % 90 < 10
    }

    /// Whether it is written down for a century.
    fn is_noted(&self) -> bool {
        self.number % 50 < 10
    }

    fn timer(&self) -> i64 {
        FAR + (self.number % 200) as i64
    }

    fn deleted_timer(&self) -> Option<i64> {
        (self.number % 110 < 30).then_some(FAR + ((self.number + 190) % 200) as i64)
    }

    fn clock_timer(&self) -> i64 {
        FAR_CLOCK + (self.number % 20) as i64
    }
}

fn longer(earlier: String, new: String) -> String {
    if new.len() > earlier.len() { new } else { earlier }
}

fn row(
    number: u64,
    count: Option<u64>,
    recent: usize,
    digits: &[(u32, u64)],
    longest: Option<String>,
    mean: Option<f64>,
) -> Row {
    let text = format!("{number}: {count:?}, {recent} recent, {digits:?}, {longest:?}, {mean:?}");
    Row { number: Some(number), text }
}

fn timer_row(key: &str, at: i64, seen: Option<u64>, noted: &[u64], often: &[(u32, u64)]) -> Row {
    let text = format!("timer of {key} at {at}: {seen:?} seen, {noted:?} noted, {often:?} often");
    Row { number: None, text }
}

/// All rows of an uninterrupted run.
pub(crate) fn expected() -> BTreeMap<Row, u64> {
    #[derive(Default)]
    struct Key {
        count: Option<u64>,
        recent: usize,
        digits: BTreeMap<u32, u64>,
        longest: Option<String>,
        numbers: Vec<u64>,
        timers: BTreeMap<i64, ()>,
        noted: Vec<u64>,
        often: BTreeMap<u32, u64>,
    }
    let mut keys: BTreeMap<String, Key> = BTreeMap::new();
    let mut rows = BTreeMap::new();
    for number in 0..NUMBERS {
        let deeds = Deeds { number };
        let key = keys.entry(format!("key-{}", number % 10)).or_default();
        key.count = if deeds.clears_count() { None } else { Some(key.count.unwrap_or(0) + 1) };
        key.recent = if deeds.clears_recent() { 0 } else { key.recent + 1 };
        if deeds.clears_digits() {
            key.digits.clear();
        }
        key.digits.insert(deeds.digit(), number);
        if let Some(digit) = deeds.removed_digit() {
            key.digits.remove(&digit);
        }
        if deeds.takes_longest() {
            key.longest = None;
        }
        let earlier = key.longest.take();
        key.longest = Some(earlier.map_or_else(|| deeds.word(), |earlier| longer(earlier, deeds.word())));
        key.numbers.push(number);
        if deeds.is_noted() {
            key.noted.push(number);
        }
        *key.often.entry(deeds.digit()).or_default() += 1;
        key.timers.insert(deeds.timer(), ());
        if let Some(at) = deeds.deleted_timer() {
            key.timers.remove(&at);
        }
        let digits: Vec<_> = key.digits.iter().map(|(digit, number)| (*digit, *number)).collect();
        let mean = key.numbers.iter().sum::<u64>() as f64 / key.numbers.len() as f64;
        let row = row(number, key.count, key.recent, &digits, key.longest.clone(), Some(mean));
        *rows.entry(row).or_default() += 1;
    }
    for (name, key) in &keys {
        let often: Vec<_> = key.often.iter().map(|(digit, count)| (*digit, *count)).collect();
        for at in key.timers.keys() {
            *rows.entry(timer_row(name, *at, None, &key.noted, &often)).or_default() += 1;
        }
    }
    rows
}

/// The mean of numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mean;

impl Aggregate for Mean {
    type In = u64;
    type Accumulator = (u64, u64);
    type Out = f64;

    fn create(&self) -> (u64, u64) {
        (0, 0)
    }

    fn add(&self, (sum, count): &mut (u64, u64), number: u64) {
        *sum += number;
        *count += 1;
    }

    fn result(&self, (sum, count): &(u64, u64)) -> f64 {
        *sum as f64 / *count as f64
    }

    fn merge(&self, (sum, count): &mut (u64, u64), other: (u64, u64)) {
        *sum += other.0;
        *count += other.1;
    }
}

/// Keeps state of every kind for each key.
#[derive(Clone)]
struct Everything;

struct Cells {
    count: ValueState<u64>,
    recent: ListState<String>,
    digits: MapState<u32, u64>,
    longest: ReducingState<String>,
    mean: AggregatingState<Mean>,
    seen: Expiring<ValueState<u64>>,
    noted: Expiring<ListState<u64>>,
    often: Expiring<MapState<u32, u64>>,
}

impl ProcessFunction for Everything {
    type Key = String;
    type In = u64;
    type Out = Row;
    type State = Cells;

    fn declare(states: &mut Declarations) -> Cells {
        Cells {
            count: states.value("count"),
            recent: states.list("recent"),
            digits: states.map("digits"),
            longest: states.reducing("longest", longer),
            mean: states.aggregating("mean", Mean),
            seen: states.expiring(Ttl::event_time(DAY)).value("seen"),
            noted: states.expiring(Ttl::event_time(CENTURY)).list("noted"),
            often: states.expiring(Ttl::processing_time(CENTURY)).map("often"),
        }
    }

    fn process(&mut self, number: u64, cells: &Cells, ctx: &mut Context<'_, Self>) -> Result<()> {
        let deeds = Deeds { number };
        if deeds.clears_count() {
            cells.count.clear(ctx)?;
        } else {
            cells.count.update(ctx, |count| *count = Some(count.unwrap_or(0) + 1))?;
        }
        if deeds.clears_recent() {
            cells.recent.clear(ctx)?;
        } else {
            cells.recent.append(ctx, format!("number {number}"))?;
        }
        if deeds.clears_digits() {
            cells.digits.clear(ctx)?;
        }
        cells.digits.put(ctx, &deeds.digit(), number)?;
        if let Some(digit) = deeds.removed_digit() {
            cells.digits.remove(ctx, &digit)?;
        }
        if deeds.takes_longest() {
            cells.longest.take(ctx)?;
        }
        cells.longest.add(ctx, deeds.word())?;
        cells.mean.add(ctx, number)?;
        cells.seen.set(ctx, number)?;
        if deeds.is_noted() {
            cells.noted.append(ctx, number)?;
        }
        let often = cells.often.get(ctx, &deeds.digit())?.unwrap_or(0);
        cells.often.put(ctx, &deeds.digit(), often + 1)?;
        ctx.timers().register(Timestamp(deeds.timer()))?;
        if let Some(at) = deeds.deleted_timer() {
            ctx.timers().delete(Timestamp(at))?;
        }
        ctx.timers().register_processing(Timestamp(deeds.clock_timer()))?;
        let row = row(
            number,
            cells.count.get(ctx)?,
            cells.recent.get(ctx)?.len(),
            &cells.digits.entries(ctx)?,
            cells.longest.get(ctx)?,
            cells.mean.get(ctx)?,
        );
        ctx.emit(row);
        Ok(())
    }

    fn on_timer(&mut self, at: Timestamp, cells: &Cells, ctx: &mut Context<'_, Self>) -> Result<()> {
        let (seen, noted) = (cells.seen.get(ctx)?, cells.noted.get(ctx)?);
        let often = cells.often.entries(ctx)?;
        let row = timer_row(ctx.key(), at.0, seen, &noted, &often);
        ctx.emit(row);
        Ok(())
    }
}

/// Keeps some numbers in lists that belong to no key, and passes all on.
#[derive(Clone)]
struct Keep;

impl ProcessFunction for Keep {
    type Key = ();
    type In = u64;
    type Out = u64;
    type State = (OperatorListState<u64>, OperatorListState<String>, SideOutput<u64>);

    fn declare(states: &mut Declarations) -> Self::State {
        (states.operator_list("dealt"), states.operator_union_list("known"), states.side_output(TOLD))
    }

    fn process(&mut self, number: u64, lists: &Self::State, ctx: &mut Context<'_, Self>) -> Result<()> {
        if number % 90 < 2 {
            lists.0.get(ctx).push(number);
        }
        if number % 70 < 2 {
            lists.1.get(ctx).push(format!("known {number}"));
        }
        if number % 30 < 2 {
            ctx.emit_to(lists.2, number);
        }
        ctx.emit(number);
        Ok(())
    }
}

/// Sums what all of its subtasks are told.
#[derive(Clone)]
struct Rules;

impl ProcessFunction for Rules {
    type Key = ();
    type In = u64;
    type Out = Row;
    type State = BroadcastState<u64, u64>;

    fn declare(states: &mut Declarations) -> Self::State {
        states.operator_broadcast("sums")
    }

    fn process(&mut self, number: u64, sums: &Self::State, ctx: &mut Context<'_, Self>) -> Result<()> {
        *sums.get_mut(ctx).entry(number % 7).or_default() += number;
        Ok(())
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// A source whose pace is the test's.

/// The numbers, as far as a gate is open.
#[derive(Clone)]
struct Gated {
    gate: Arc<AtomicU64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Half {
    first: u64,
    next: u64,
}

impl Split for Half {
    fn id(&self) -> String {
        if self.first == 0 { "even" } else { "odd" }.to_owned()
    }
}

impl Source for Gated {
    type Out = u64;
    type Split = Half;
    type Reader = GatedReader;

    fn boundedness(&self) -> Boundedness {
        Boundedness::Bounded
    }

    async fn place(&self, _env: &Env) -> Result<Option<String>> {
        Ok(Some("golden numbers".to_owned()))
    }

    async fn discover(&self, _context: &SourceContext) -> Result<Vec<Half>> {
        Ok([0, 1].map(|first| Half { first, next: first }).into())
    }

    async fn open(&self, split: Half, context: &SourceContext) -> Result<GatedReader> {
        Ok(GatedReader { gate: self.gate.clone(), split, env: context.env.clone() })
    }
}

struct GatedReader {
    gate: Arc<AtomicU64>,
    split: Half,
    env: Env,
}

impl SplitReader for GatedReader {
    type Out = u64;
    type Split = Half;

    async fn read(&mut self, out: &mut SourceOutput<'_, u64>) -> Result<ReadStatus> {
        if self.split.next >= NUMBERS {
            return Ok(ReadStatus::End);
        }
        while self.split.next >= self.gate.load(Ordering::Relaxed) {
            self.env.sleep(Duration::from_millis(10)).await;
        }
        for _ in 0..out.room() {
            if self.split.next >= self.gate.load(Ordering::Relaxed).min(NUMBERS) {
                break;
            }
            out.emit_at(self.split.next, Timestamp(self.split.next as i64));
            self.split.next += 2;
        }
        Ok(ReadStatus::More)
    }

    fn position(&self) -> Half {
        self.split.clone()
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// A sink whose prepared transactions are whole in the checkpoint.

/// What was committed. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Output {
    committed: Arc<Mutex<BTreeMap<TransactionId, Vec<Row>>>>,
    refuses: Arc<AtomicBool>,
}

impl Output {
    /// From now on nothing is committed.
    #[allow(dead_code, reason = "only who writes the snapshots refuses")]
    pub(crate) fn refuse(&self) {
        self.refuses.store(true, Ordering::Relaxed);
    }

    /// All rows that were committed, and how often.
    pub(crate) fn rows(&self) -> BTreeMap<Row, u64> {
        let mut rows = BTreeMap::new();
        for row in self.committed.lock().unwrap().values().flatten() {
            *rows.entry(row.clone()).or_default() += 1;
        }
        rows
    }
}

impl TwoPhaseSink for Output {
    type In = Row;
    type Sealed = Vec<Row>;
    type Prepared = Vec<Row>;
    type Writer = OutputWriter;
    type Committer = Output;

    async fn place(&self, _env: &Env) -> Result<Option<String>> {
        Ok(Some("golden rows".to_owned()))
    }

    async fn writer(&self, _context: &SinkContext) -> Result<OutputWriter> {
        Ok(OutputWriter(Vec::new()))
    }

    async fn committer(&self, _context: &SinkContext) -> Result<Output> {
        Ok(self.clone())
    }
}

pub(crate) struct OutputWriter(Vec<Row>);

impl TwoPhaseWriter for OutputWriter {
    type In = Row;
    type Sealed = Vec<Row>;

    async fn write(&mut self, mut batch: Batch<Row>) -> Result<()> {
        while let Some(record) = batch.next() {
            self.0.push(record.value);
        }
        Ok(())
    }

    fn seal(&mut self, _id: &TransactionId) -> Result<Option<Vec<Row>>> {
        Ok(Some(std::mem::take(&mut self.0)).filter(|rows| !rows.is_empty()))
    }
}

impl Committer for Output {
    type Sealed = Vec<Row>;
    type Prepared = Vec<Row>;

    async fn prepare(&mut self, _id: &TransactionId, sealed: Vec<Row>) -> Result<Vec<Row>> {
        Ok(sealed)
    }

    async fn commit(&mut self, id: &TransactionId, prepared: &Vec<Row>) -> Result<CommitOutcome> {
        if self.refuses.load(Ordering::Relaxed) {
            return Ok(CommitOutcome::Retry("the output is closed".to_owned()));
        }
        self.committed.lock().unwrap().insert(id.clone(), prepared.clone());
        Ok(CommitOutcome::Committed)
    }

    async fn revoke(&mut self, id: &TransactionId, _prepared: &Vec<Row>) -> Result<bool> {
        Ok(!self.committed.lock().unwrap().contains_key(id))
    }

    async fn sweep(&mut self, _keep: &[TransactionId]) -> Result<()> {
        Ok(())
    }

    async fn finds(&mut self, _id: &TransactionId, _prepared: &Vec<Row>) -> Result<bool> {
        Ok(true)
    }

    async fn held(&mut self) -> Result<Vec<Marker>> {
        let committed = self.committed.lock().unwrap();
        let newest = committed.keys().map(|id| (id.lineage, id.checkpoint)).max();
        let marker = |(lineage, checkpoint)| Marker { lineage, checkpoint, place: "memory".to_owned() };
        Ok(newest.map(marker).into_iter().collect())
    }
}
