//! Sources and sinks that panic wherever the runtime calls them, in a task or not: it is the user's error, it says whose,
//! and it is restarted as any other.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use tidegate_engine::{
    api::{
        sink::{CommitOutcome, Committer, Marker, SinkContext, TransactionId, TwoPhaseSink, TwoPhaseWriter},
        source::{Boundedness, ReadStatus, Source, SourceContext, SourceOutput, SplitReader},
    },
    prelude::*,
    record::Batch,
};

use crate::{
    ledger::{Ledger, LedgerCommitter, LedgerWriter, Records},
    numbers::{NumberReader, NumberSplit, Numbers},
    world::{assert_says, run, simulate, with_settings},
};

/// Panics at one place, so many times.
#[derive(Clone)]
struct Panics {
    at: &'static str,
    left: Arc<AtomicU32>,
}

impl Panics {
    fn new(at: &'static str, times: u32) -> Self {
        Self { at, left: Arc::new(AtomicU32::new(times)) }
    }

    fn here(&self, place: &str) {
        let take = |left: u32| left.checked_sub(1);
        if self.at == place && self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
            panic!("it panics in {place}");
        }
    }
}

/// Numbers that panic.
#[derive(Clone)]
struct Origin(Numbers, Panics);

impl Source for Origin {
    type Out = u64;
    type Split = NumberSplit;
    type Reader = OriginReader;

    fn boundedness(&self) -> Boundedness {
        self.0.boundedness()
    }

    async fn place(&self, _env: &Env) -> Result<Option<String>> {
        self.1.here("source place");
        Ok(None)
    }

    async fn discover(&self, context: &SourceContext) -> Result<Vec<NumberSplit>> {
        self.1.here("discover");
        self.0.discover(context).await
    }

    async fn open(&self, split: NumberSplit, context: &SourceContext) -> Result<OriginReader> {
        self.1.here("open");
        Ok(OriginReader(self.0.open(split, context).await?, self.1.clone()))
    }
}

struct OriginReader(NumberReader, Panics);

impl SplitReader for OriginReader {
    type Out = u64;
    type Split = NumberSplit;

    async fn read(&mut self, out: &mut SourceOutput<'_, u64>) -> Result<ReadStatus> {
        self.1.here("read");
        self.0.read(out).await
    }

    fn position(&self) -> NumberSplit {
        self.1.here("position");
        self.0.position()
    }
}

/// A ledger that panics.
#[derive(Clone)]
struct End(Ledger<u64>, Panics);

impl TwoPhaseSink for End {
    type In = u64;
    type Sealed = Vec<u64>;
    type Prepared = Records;
    type Writer = EndWriter;
    type Committer = EndCommitter;

    async fn place(&self, _env: &Env) -> Result<Option<String>> {
        self.1.here("sink place");
        Ok(None)
    }

    async fn writer(&self, context: &SinkContext) -> Result<EndWriter> {
        self.1.here("writer");
        Ok(EndWriter(self.0.writer(context).await?, self.1.clone()))
    }

    async fn committer(&self, context: &SinkContext) -> Result<EndCommitter> {
        self.1.here("committer");
        Ok(EndCommitter(self.0.committer(context).await?, self.1.clone()))
    }
}

struct EndWriter(LedgerWriter<u64>, Panics);

impl TwoPhaseWriter for EndWriter {
    type In = u64;
    type Sealed = Vec<u64>;

    async fn write(&mut self, batch: Batch<u64>) -> Result<()> {
        self.1.here("write");
        self.0.write(batch).await
    }

    fn seal(&mut self, id: &TransactionId) -> Result<Option<Vec<u64>>> {
        self.1.here("seal");
        self.0.seal(id)
    }
}

struct EndCommitter(LedgerCommitter<u64>, Panics);

impl Committer for EndCommitter {
    type Sealed = Vec<u64>;
    type Prepared = Records;

    async fn prepare(&mut self, id: &TransactionId, sealed: Vec<u64>) -> Result<Records> {
        self.1.here("prepare");
        self.0.prepare(id, sealed).await
    }

    async fn commit(&mut self, id: &TransactionId, prepared: &Records) -> Result<CommitOutcome> {
        self.1.here("commit");
        self.0.commit(id, prepared).await
    }

    async fn revoke(&mut self, id: &TransactionId, prepared: &Records) -> Result<bool> {
        self.0.revoke(id, prepared).await
    }

    async fn sweep(&mut self, keep: &[TransactionId]) -> Result<()> {
        self.1.here("sweep");
        self.0.sweep(keep).await
    }

    async fn held(&mut self) -> Result<Vec<Marker>> {
        self.1.here("held");
        self.0.held().await
    }
}

/// The sink has a chain of its own: the source's task runs already when the writer is made.
fn job(panics: &Panics, ledger: &Ledger<u64>) -> Job {
    let settings = [
        ("checkpoints.url", "/checkpoints"),
        ("checkpoints.interval", "100ms"),
        ("restart", "fixed-delay:2:1s"),
    ];
    let job = with_settings(Job::new("subject"), &settings).unwrap();
    let numbers = Numbers::new(1, 100).paced(3, std::time::Duration::from_millis(10));
    job.source("numbers", Origin(numbers, panics.clone()))
        .key_by(|number| *number)
        .count("count")
        .map(|(key, _)| key)
        .sink("out", End(ledger.clone(), panics.clone()));
    job
}

/// Where a source and a sink are called.
const PLACES: [(&str, &str); 13] = [
    ("source place", "source numbers"),
    ("discover", "source numbers"),
    ("open", "source numbers"),
    ("read", "source numbers"),
    ("position", "source numbers"),
    ("sink place", "sink out"),
    ("writer", "sink out"),
    ("committer", "sink out"),
    ("held", "sink out"),
    ("sweep", "sink out"),
    ("write", "sink out"),
    ("prepare", "sink out"),
    ("commit", "sink out"),
];

#[test]
fn a_panic_is_the_users_wherever_it_is_and_says_whose() {
    for (place, whose) in PLACES {
        simulate(async |sim, _| {
            let error = run(sim, job(&Panics::new(place, u32::MAX), &Ledger::default())).await.unwrap_err();
            assert_says(&error, ErrorKind::User, &[whose, &format!("panicked: it panics in {place}")]);
        });
    }
}

#[test]
fn a_job_goes_on_after_a_panic_that_passes() {
    for place in ["open", "read", "position", "writer", "seal", "write", "prepare", "commit"] {
        simulate(async |sim, _| {
            let ledger = Ledger::default();
            let ended = run(sim, job(&Panics::new(place, 1), &ledger)).await;
            let ended = ended.unwrap_or_else(|error| panic!("{place}: {error}"));
            assert_eq!((&*ended.how, ended.restarts), ("finished", 1), "{place}");
            assert_eq!(ledger.committed(), (0..100).map(|number| (number, 1)).collect(), "{place}");
            assert_eq!(ledger.breaches(), Vec::<String>::new(), "{place}");
        });
    }
}
