//! The two-phase contract, call by call, in one process and any world.

use std::path::Path;

use engine::{
    api::sink::{CommitOutcome, Committer, Marker, SinkContext, TransactionId, TwoPhaseSink, TwoPhaseWriter},
    record::Batch,
};
use env::Env;
use types::{CheckpointId, ErrorKind, JobId, Lineage};

use super::subject::{LINEAGE, SinkSubject, context, renamed, visible};

/// Runs all checks, each with a subject of its own below `dir`.
///
/// # Panics
/// If the sink breaks its contract.
pub async fn contract<S: SinkSubject>(env: &Env, dir: &Path) {
    shows_records_at_commit_alone::<S>(env, &dir.join("commit")).await;
    commits_once_from_anywhere::<S>(env, &dir.join("again")).await;
    seals_nothing_if_nothing_was_written::<S>(env, &dir.join("empty")).await;
    sweeps_what_is_not_kept::<S>(env, &dir.join("sweep")).await;
    leaves_later_attempts_alone::<S>(env, &dir.join("later")).await;
    revokes_what_is_not_committed::<S>(env, &dir.join("revoke")).await;
    commits_before_it_revokes::<S>(env, &dir.join("fall-back")).await;
    tells_what_it_holds::<S>(env, &dir.join("held")).await;
    finds_what_it_prepared_where_that_is::<S>(env, &dir.join("moved")).await;
    takes_over_from_a_former_name::<S>(env, &dir.join("renamed")).await;
    keeps_large_transactions_whole::<S>(env, &dir.join("large")).await;
}

/// What a reader sees before the first commit.
const NOTHING: [u64; 0] = [];

type Writer<S> = <<S as SinkSubject>::Sink as TwoPhaseSink>::Writer;
type Commit<S> = <<S as SinkSubject>::Sink as TwoPhaseSink>::Committer;
type Prepared<S> = <<S as SinkSubject>::Sink as TwoPhaseSink>::Prepared;

/// A writer and the committer beside it.
pub(super) struct Pair<S: SinkSubject> {
    pub(super) context: SinkContext,
    pub(super) writer: Writer<S>,
    pub(super) committer: Commit<S>,
}

impl<S: SinkSubject> Pair<S> {
    pub(super) async fn open(subject: &S, context: SinkContext) -> types::Result<Self> {
        let sink = subject.sink();
        let committer = sink.committer(&context).await?;
        let writer = sink.writer(&context).await?;
        Ok(Self { context, writer, committer })
    }

    pub(super) async fn write(
        &mut self,
        subject: &S,
        numbers: impl IntoIterator<Item = u64>,
    ) -> types::Result<()> {
        let records: Vec<_> = numbers.into_iter().map(|number| subject.record(number)).collect();
        self.writer.write(Batch::from(records)).await
    }

    pub(super) fn id(&self, checkpoint: u64) -> TransactionId {
        transaction(&self.context, checkpoint)
    }

    /// Writes, seals and prepares a transaction.
    async fn prepared(
        &mut self,
        subject: &S,
        checkpoint: u64,
        numbers: impl IntoIterator<Item = u64>,
    ) -> Transaction<S> {
        self.write(subject, numbers).await.expect("records can be written");
        let id = self.id(checkpoint);
        let sealed =
            self.writer.seal(&id).expect("a transaction can be sealed").expect("something was written");
        let prepared = self.committer.prepare(&id, sealed).await.expect("a transaction can be prepared");
        Transaction { id, prepared }
    }
}

/// The transaction of a writer at a checkpoint.
pub(super) fn transaction(context: &SinkContext, checkpoint: u64) -> TransactionId {
    TransactionId {
        job: context.job,
        sink: context.uid.clone(),
        lineage: context.lineage,
        writer: context.subtask,
        attempt: context.attempt,
        checkpoint: CheckpointId(checkpoint),
    }
}

struct Transaction<S: SinkSubject> {
    id: TransactionId,
    prepared: Prepared<S>,
}

impl<S: SinkSubject> Transaction<S> {
    async fn commit(&self, by: &mut Commit<S>) -> CommitOutcome {
        by.commit(&self.id, &self.prepared).await.expect("a commit has an outcome")
    }
}

/// A place that is swept and has writers 0 and 1 of attempt 1.
async fn open<S: SinkSubject>(env: &Env, dir: &Path) -> (S, [Pair<S>; 2]) {
    let subject = S::at(dir);
    subject.sink().validate().expect("the settings are right");
    start(&subject, env, LINEAGE, 1, &[]).await;
    let [first, second] = [0, 1].map(|writer| Pair::open(&subject, context(env, LINEAGE, 1, writer)));
    let pairs = [first.await.expect("a writer can be opened"), second.await.expect("a writer can be opened")];
    (subject, pairs)
}

/// What happens at a start before any writer opens.
async fn start<S: SinkSubject>(
    subject: &S,
    env: &Env,
    lineage: Lineage,
    attempt: u64,
    keep: &[TransactionId],
) -> Commit<S> {
    let mut committer = committer(subject, env, lineage, attempt).await;
    committer.sweep(keep).await.expect("the place can be swept");
    committer
}

async fn committer<S: SinkSubject>(subject: &S, env: &Env, lineage: Lineage, attempt: u64) -> Commit<S> {
    let context = context(env, lineage, attempt, 0);
    subject.sink().committer(&context).await.expect("a committer can be opened")
}

async fn shows_records_at_commit_alone<S: SinkSubject>(env: &Env, dir: &Path) {
    let (subject, [mut first, mut second]) = open::<S>(env, dir).await;
    first.write(&subject, 0..3).await.expect("records can be written");
    assert_eq!(visible(&subject, env).await, NOTHING, "written, not committed");
    let one = first.prepared(&subject, 1, 3..5).await;
    let other = second.prepared(&subject, 1, 5..7).await;
    assert_eq!(visible(&subject, env).await, NOTHING, "prepared, not committed");
    // What is written after the barrier belongs to the next checkpoint.
    first.write(&subject, 7..9).await.expect("records can be written");
    assert_eq!(one.commit(&mut first.committer).await, CommitOutcome::Committed);
    assert_eq!(visible(&subject, env).await, [0, 1, 2, 3, 4], "one writer committed");
    assert_eq!(other.commit(&mut second.committer).await, CommitOutcome::Committed);
    assert_eq!(visible(&subject, env).await, (0..7).collect::<Vec<_>>(), "both writers committed");
    let next = first.prepared(&subject, 2, []).await;
    assert_eq!(next.commit(&mut first.committer).await, CommitOutcome::Committed);
    assert_eq!(visible(&subject, env).await, (0..9).collect::<Vec<_>>(), "the next checkpoint committed");
}

async fn commits_once_from_anywhere<S: SinkSubject>(env: &Env, dir: &Path) {
    let (subject, [mut first, second]) = open::<S>(env, dir).await;
    let done = first.prepared(&subject, 1, 0..3).await;
    assert_eq!(done.commit(&mut first.committer).await, CommitOutcome::Committed);
    assert_eq!(
        done.commit(&mut first.committer).await,
        CommitOutcome::Committed,
        "again, by the same committer"
    );
    let pending = first.prepared(&subject, 2, 3..6).await;
    drop((first, second));
    let mut later = start(&subject, env, LINEAGE, 2, std::slice::from_ref(&pending.id)).await;
    assert_eq!(done.commit(&mut later).await, CommitOutcome::Committed, "again, by a later attempt");
    assert_eq!(pending.commit(&mut later).await, CommitOutcome::Committed, "by a later attempt alone");
    let mut other = committer(&subject, env, LINEAGE, 3).await;
    assert_eq!(pending.commit(&mut other).await, CommitOutcome::Committed, "and again by another one");
    assert_eq!(visible(&subject, env).await, (0..6).collect::<Vec<_>>());
}

async fn seals_nothing_if_nothing_was_written<S: SinkSubject>(env: &Env, dir: &Path) {
    let (subject, [mut first, _second]) = open::<S>(env, dir).await;
    let seal = |pair: &mut Pair<S>, checkpoint| {
        let id = pair.id(checkpoint);
        pair.writer.seal(&id).expect("a transaction can be sealed").is_some()
    };
    assert!(!seal(&mut first, 1), "nothing was ever written");
    first.write(&subject, []).await.expect("an empty batch can be written");
    assert!(!seal(&mut first, 2), "an empty batch was written");
    first.write(&subject, [1]).await.expect("records can be written");
    assert!(seal(&mut first, 3), "a record was written");
    assert!(!seal(&mut first, 4), "nothing was written since");
}

async fn sweeps_what_is_not_kept<S: SinkSubject>(env: &Env, dir: &Path) {
    let (subject, [mut first, mut second]) = open::<S>(env, dir).await;
    let kept = first.prepared(&subject, 1, 0..3).await;
    let dropped = second.prepared(&subject, 1, 3..6).await;
    let committed = first.prepared(&subject, 2, 6..9).await;
    assert_eq!(committed.commit(&mut first.committer).await, CommitOutcome::Committed);
    second.write(&subject, 9..12).await.expect("records can be written");
    drop((first, second));
    let mut later = start(&subject, env, LINEAGE, 2, std::slice::from_ref(&kept.id)).await;
    assert!(
        matches!(dropped.commit(&mut later).await, CommitOutcome::Lost(_)),
        "what was swept must not be committed any more"
    );
    assert_eq!(kept.commit(&mut later).await, CommitOutcome::Committed, "what was kept");
    later.sweep(&[]).await.expect("the place can be swept again");
    assert_eq!(visible(&subject, env).await, [0, 1, 2, 6, 7, 8], "a sweep touches nothing that is committed");
}

/// An attempt that was paused before its sweep, and goes on when a later one is at work.
async fn leaves_later_attempts_alone<S: SinkSubject>(env: &Env, dir: &Path) {
    let (subject, [mut paused, _second]) = open::<S>(env, dir).await;
    start(&subject, env, LINEAGE, 2, &[]).await;
    let mut rival = Pair::open(&subject, context(env, LINEAGE, 2, 0)).await.expect("a writer can be opened");
    let prepared = rival.prepared(&subject, 1, 0..3).await;
    rival.write(&subject, 3..6).await.expect("records can be written");
    paused.committer.sweep(&[]).await.expect("a sweep that comes too late is no error");
    assert_eq!(
        prepared.commit(&mut rival.committer).await,
        CommitOutcome::Committed,
        "an older attempt must not sweep what a later one has prepared"
    );
    let written = rival.prepared(&subject, 2, []).await;
    assert_eq!(
        written.commit(&mut rival.committer).await,
        CommitOutcome::Committed,
        "an older attempt must not sweep what a later one has written"
    );
    assert_eq!(visible(&subject, env).await, (0..6).collect::<Vec<_>>());
}

async fn revokes_what_is_not_committed<S: SinkSubject>(env: &Env, dir: &Path) {
    let (subject, [mut first, _second]) = open::<S>(env, dir).await;
    let pending = first.prepared(&subject, 1, 0..3).await;
    let committed = first.prepared(&subject, 2, 3..6).await;
    assert_eq!(committed.commit(&mut first.committer).await, CommitOutcome::Committed);
    let mut later = committer(&subject, env, LINEAGE, 2).await;
    for (transaction, expected) in
        [(&pending, true), (&pending, true), (&committed, false), (&committed, false)]
    {
        let revoked =
            later.revoke(&transaction.id, &transaction.prepared).await.expect("a revoke has an outcome");
        assert_eq!(revoked, expected, "revoke of checkpoint {}", transaction.id.checkpoint);
    }
    for _ in 0..2 {
        // Whoever prepared it may still believe that it can be committed.
        let outcome = pending.commit(&mut first.committer).await;
        assert!(matches!(outcome, CommitOutcome::Lost(_)), "revoked, then committed: {outcome:?}");
    }
    assert_eq!(visible(&subject, env).await, [3, 4, 5], "a revoke touches nothing that is committed");
}

/// A start that falls back: what completed before the damaged checkpoint is committed, then that one is revoked. A crash
/// in between repeats all of it.
async fn commits_before_it_revokes<S: SinkSubject>(env: &Env, dir: &Path) {
    let (subject, [mut first, mut second]) = open::<S>(env, dir).await;
    let completed = first.prepared(&subject, 1, 0..3).await;
    let of_two = second.prepared(&subject, 1, 3..6).await;
    let damaged = first.prepared(&subject, 2, 6..9).await;
    for attempt in 2..4 {
        let mut later = committer(&subject, env, LINEAGE, attempt).await;
        for transaction in [&completed, &of_two] {
            assert_eq!(transaction.commit(&mut later).await, CommitOutcome::Committed, "attempt {attempt}");
        }
        let revoked = later.revoke(&damaged.id, &damaged.prepared).await.expect("a revoke has an outcome");
        assert!(revoked, "attempt {attempt}: it was never committed");
        later.sweep(&[]).await.expect("the place can be swept");
        assert_eq!(visible(&subject, env).await, [0, 1, 2, 3, 4, 5], "attempt {attempt}");
    }
    let outcome = damaged.commit(&mut first.committer).await;
    assert!(matches!(outcome, CommitOutcome::Lost(_)), "revoked, then committed: {outcome:?}");
    drop((first, second));
    // The replay writes the same records with a later checkpoint.
    let mut pair = Pair::open(&subject, context(env, LINEAGE, 4, 0)).await.expect("a writer can be opened");
    let again = pair.prepared(&subject, 3, 6..9).await;
    assert_eq!(again.commit(&mut pair.committer).await, CommitOutcome::Committed);
    assert_eq!(visible(&subject, env).await, (0..9).collect::<Vec<_>>());
}

async fn tells_what_it_holds<S: SinkSubject>(env: &Env, dir: &Path) {
    let subject = S::at(dir);
    let mut before = committer(&subject, env, LINEAGE, 1).await;
    assert_eq!(
        before.held().await.expect("a place not yet used can be asked"),
        [],
        "nothing was ever written"
    );
    let (subject, [mut first, mut second]) = open::<S>(env, dir).await;
    let held = async |committer: &mut Commit<S>| {
        let markers = committer.held().await.expect("the place can be asked what it holds");
        markers.into_iter().map(|marker| (marker.lineage, marker.checkpoint.0)).collect::<Vec<_>>()
    };
    let one = first.prepared(&subject, 1, 0..3).await;
    let two = second.prepared(&subject, 2, 3..6).await;
    let three = first.prepared(&subject, 3, 6..9).await;
    assert_eq!(held(&mut first.committer).await, [], "prepared, not committed");
    assert_eq!(one.commit(&mut first.committer).await, CommitOutcome::Committed);
    assert_eq!(two.commit(&mut second.committer).await, CommitOutcome::Committed);
    assert_eq!(held(&mut first.committer).await, [(LINEAGE, 2)], "the newest of all writers");
    assert_eq!(three.commit(&mut first.committer).await, CommitOutcome::Committed);
    drop((first, second));

    let other = Lineage(LINEAGE.0 + 1);
    let mut later = committer(&subject, env, other, 2).await;
    assert_eq!(held(&mut later).await, [(LINEAGE, 3)], "another line of history");
    start(&subject, env, other, 2, &[]).await;
    let mut pair = Pair::open(&subject, context(env, other, 2, 0)).await.expect("a writer can be opened");
    let one = pair.prepared(&subject, 1, 9..12).await;
    assert_eq!(one.commit(&mut pair.committer).await, CommitOutcome::Committed);
    assert_eq!(held(&mut later).await, [(LINEAGE, 3), (other, 1)], "both lines of history");

    let mut foreign = context(env, Lineage(99), 1, 0);
    foreign.job = JobId(foreign.job.0 + 1);
    let found = async { subject.sink().committer(&foreign).await?.held().await };
    let error = found.await.expect_err("the place belongs to another job");
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
}

/// A sink that has a place is asked before a start that gives it another one.
async fn finds_what_it_prepared_where_that_is<S: SinkSubject>(env: &Env, dir: &Path) {
    let (subject, [mut first, _second]) = open::<S>(env, &dir.join("here")).await;
    if subject.sink().place(env).await.expect("the sink knows its place").is_none() {
        return;
    }
    let committed = first.prepared(&subject, 1, 0..3).await;
    assert_eq!(committed.commit(&mut first.committer).await, CommitOutcome::Committed);
    let pending = first.prepared(&subject, 2, 3..6).await;
    let mut here = committer(&subject, env, LINEAGE, 2).await;
    let mut there = committer(&S::at(&dir.join("there")), env, LINEAGE, 2).await;
    let finds = async |by: &mut Commit<S>, transaction: &Transaction<S>| {
        by.finds(&transaction.id, &transaction.prepared).await.expect("the place can be searched")
    };
    for (transaction, what) in [(&committed, "committed"), (&pending, "prepared")] {
        assert!(finds(&mut here, transaction).await, "what is {what} is here");
        assert!(!finds(&mut there, transaction).await, "what is {what} is not there");
    }
    assert_eq!(visible(&subject, env).await, [0, 1, 2], "whoever looks changes nothing");
    here.revoke(&pending.id, &pending.prepared).await.expect("a transaction can be revoked");
    assert!(!finds(&mut here, &pending).await, "what was thrown away is nowhere");
}

/// A renamed sink: one committer for each name, all that was prepared committed before anything is swept.
async fn takes_over_from_a_former_name<S: SinkSubject>(env: &Env, dir: &Path) {
    let (subject, [mut first, mut second]) = open::<S>(env, dir).await;
    let done = first.prepared(&subject, 1, 0..3).await;
    assert_eq!(done.commit(&mut first.committer).await, CommitOutcome::Committed);
    let pending = first.prepared(&subject, 2, 3..6).await;
    let dropped = second.prepared(&subject, 3, 6..9).await;
    drop((first, second));

    let [present, former] = renamed(env, 2);
    let mut new = subject.sink().committer(&present).await.expect("a committer can be opened");
    let mut old = subject.sink().committer(&former).await.expect("a committer can be opened");
    let mut held = new.held().await.expect("the sink can be asked under its new name");
    held.extend(old.held().await.expect("the sink can be asked under its former name"));
    let expected = |marker: &Marker| marker.lineage == LINEAGE && marker.checkpoint == CheckpointId(1);
    assert!(!held.is_empty() && held.iter().all(expected), "what was committed is still known: {held:?}");
    assert_eq!(pending.commit(&mut old).await, CommitOutcome::Committed, "under the former name");
    new.sweep(&[]).await.expect("the place can be swept under the new name");
    old.sweep(&[]).await.expect("the place can be swept under the former name");
    assert!(
        matches!(dropped.commit(&mut old).await, CommitOutcome::Lost(_)),
        "what was swept must not be committed any more"
    );
    let mut pair = Pair::open(&subject, present).await.expect("a writer can be opened under the new name");
    let next = pair.prepared(&subject, 4, 9..12).await;
    assert_eq!(next.commit(&mut pair.committer).await, CommitOutcome::Committed);
    assert_eq!(visible(&subject, env).await, [0, 1, 2, 3, 4, 5, 9, 10, 11]);
}

async fn keeps_large_transactions_whole<S: SinkSubject>(env: &Env, dir: &Path) {
    const BATCH: u64 = 1000;
    const BATCHES: u64 = 300;
    let (subject, [mut first, _second]) = open::<S>(env, dir).await;
    for batch in 0..BATCHES {
        first.write(&subject, batch * BATCH..(batch + 1) * BATCH).await.expect("records can be written");
    }
    assert_eq!(visible(&subject, env).await, NOTHING, "written, not committed");
    let large = first.prepared(&subject, 1, []).await;
    drop(first);
    let mut later = start(&subject, env, LINEAGE, 2, std::slice::from_ref(&large.id)).await;
    assert_eq!(large.commit(&mut later).await, CommitOutcome::Committed);
    assert!(visible(&subject, env).await.into_iter().eq(0..BATCHES * BATCH), "all records, each once");
}
