//! The scripted life of a sink: two writers, seven checkpoints, every kind of them. It can be cut at any step; the next
//! life goes on from what the log says, as an attempt goes on from the job history.
//!
//! Checkpoint 2: the second writer has nothing to write. 3 fails after everything was prepared; its transactions go into
//! 4. 5 completes, but is revoked before anything of it is committed, and replayed as 6.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use engine::api::sink::{CommitOutcome, Committer, SinkContext, TransactionId, TwoPhaseSink, TwoPhaseWriter};
use env::Env;
use types::{Error, ErrorKind, Result};

use super::{
    log::{Entry, Log, Standing, Stored},
    sink::Pair,
    subject::{LINEAGE, SinkSubject, context, visible},
};

const WRITERS: u64 = 2;
const LAST: u64 = 7;
/// Records of one writer and checkpoint.
const RECORDS: u64 = 6;
/// Records of these that are written after the barrier before them and before the commits.
const EARLY: u64 = 2;

const EMPTY: u64 = 2;
const FAILED: u64 = 3;
const REVOKED: u64 = 5;

/// So often a commit is tried again before the attempt ends.
const COMMIT_TRIES: u32 = 3;

/// What is told of each step, with its name; an error ends the life there.
pub(super) type Steps<'a> = &'a (dyn Fn(&str) -> Result<()> + Send + Sync);

type Prepared<S> = <<S as SinkSubject>::Sink as TwoPhaseSink>::Prepared;

/// Where the output and the log of a scripted life are.
pub(super) struct Script<S> {
    subject: S,
    log: PathBuf,
    /// How often something was tried again that a failure had ended.
    tried_again: AtomicU32,
}

impl<S: SinkSubject> Script<S> {
    pub(super) fn below(dir: &Path) -> Self {
        let (subject, log) = (S::at(&dir.join("output")), dir.join("log"));
        Self { subject, log, tried_again: AtomicU32::new(0) }
    }

    pub(super) fn try_again(&self) {
        self.tried_again.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn tried_again(&self) -> bool {
        self.tried_again.load(Ordering::Relaxed) > 0
    }

    /// Lives until the last checkpoint is confirmed, in as many attempts as the script itself asks for.
    pub(super) async fn live(&self, env: &Env, steps: Steps<'_>) -> Result<()> {
        while self.attempt(env, steps).await? == Ended::Restart {}
        Ok(())
    }

    async fn attempt(&self, env: &Env, steps: Steps<'_>) -> Result<Ended> {
        let log = Log::at(env, &self.log);
        log.make()?;
        let standing: Standing<Prepared<S>> = log.read()?;
        let mut attempt = Attempt { script: self, env, steps, log, standing };
        attempt.append(Entry::Started)?;
        attempt.recover().await?;
        attempt.run().await
    }

    fn standing(&self, env: &Env) -> Standing<Prepared<S>> {
        Log::at(env, &self.log).read().expect("the log can be read")
    }

    /// Checks what a reader sees against the log.
    ///
    /// # Panics
    /// If something is visible that is not committed, twice, or not visible though confirmed.
    pub(super) async fn check(&self, env: &Env) {
        let standing = self.standing(env);
        let visible = visible(&self.subject, env).await;
        let none = vec![0; usize::try_from(WRITERS).expect("few")];
        let allowed = standing.last().map_or(&none, |last| &last.positions);
        let confirmed = standing.completed.iter().rfind(|it| it.confirmed).map_or(&none, |it| &it.positions);
        assert!(visible.is_sorted_by(|a, b| a < b), "a record is visible twice: {visible:?}");
        let covered = |number: &u64, positions: &[u64]| {
            let writer = usize::try_from(number % WRITERS).expect("few");
            number / WRITERS < positions[writer]
        };
        if let Some(number) = visible.iter().find(|number| !covered(number, allowed)) {
            panic!(
                "record {number} is visible, but its checkpoint has not completed (completed: {allowed:?})"
            );
        }
        let all = 0..WRITERS * LAST * RECORDS;
        if let Some(number) =
            all.into_iter().find(|number| covered(number, confirmed) && !visible.contains(number))
        {
            panic!(
                "record {number} is not visible, though its checkpoint is confirmed ({confirmed:?}): {visible:?}"
            );
        }
    }

    /// Checks that the script came to its end and every record is visible once.
    ///
    /// # Panics
    /// If not.
    pub(super) async fn check_end(&self, env: &Env) {
        let standing = self.standing(env);
        let last = standing.last().expect("a checkpoint has completed");
        assert!(last.confirmed && last.checkpoint >= LAST, "the script is not done: {}", last.checkpoint);
        let ends = last.positions.iter().copied();
        let mut expected: Vec<u64> =
            (0..).zip(ends).flat_map(|(writer, end)| (0..end).map(move |at| at * WRITERS + writer)).collect();
        expected.sort_unstable();
        assert_eq!(visible(&self.subject, env).await, expected, "every record, each exactly once");
    }
}

/// Why an attempt ended without an error.
#[derive(PartialEq, Eq)]
enum Ended {
    Finished,
    Restart,
}

struct Attempt<'a, S: SinkSubject> {
    script: &'a Script<S>,
    env: &'a Env,
    steps: Steps<'a>,
    log: Log<'a>,
    standing: Standing<Prepared<S>>,
}

impl<S: SinkSubject> Attempt<'_, S> {
    fn append(&mut self, entry: Entry<Prepared<S>>) -> Result<()> {
        self.log.append(self.standing.entries, &entry)?;
        self.standing.add(entry);
        Ok(())
    }

    fn step(&self, name: &str) -> Result<()> {
        (self.steps)(name)
    }

    fn context(&self, writer: u64) -> SinkContext {
        let writer = u32::try_from(writer).expect("few writers");
        context(self.env, LINEAGE, self.standing.attempts, writer)
    }

    /// Brings the sink to where the log is, before any writer opens.
    async fn recover(&mut self) -> Result<()> {
        let context = self.context(0);
        let mut committer = self.script.subject.sink().committer(&context).await?;
        let completed = self.standing.last().map_or(0, |last| last.checkpoint);
        for marker in committer.held().await? {
            assert_eq!(marker.lineage, LINEAGE, "a marker of nobody: {marker:?}");
            assert!(marker.checkpoint.0 <= completed, "a marker ahead of checkpoint {completed}: {marker:?}");
        }
        if let Some(last) = self.standing.last().filter(|last| !last.confirmed).cloned() {
            self.commit(&mut committer, last.checkpoint, &last.transactions).await?;
        }
        if let Some(revoked) = self.standing.revoked.clone() {
            self.revoke(&mut committer, &revoked.transactions).await?;
        }
        self.step("sweep.before")?;
        committer.sweep(&[]).await?;
        self.step("sweep.after")
    }

    async fn run(&mut self) -> Result<Ended> {
        let mut writers = Vec::new();
        for writer in 0..WRITERS {
            writers.push(Pair::open(&self.script.subject, self.context(writer)).await?);
        }
        let nothing = vec![0; writers.len()];
        let mut positions = self.standing.last().map_or(nothing, |last| last.positions.clone());
        let mut early = vec![0; writers.len()];
        let mut carried = Vec::new();
        for checkpoint in self.standing.last_number + 1..=LAST {
            for (writer, pair) in (0..).zip(&mut writers) {
                let index = usize::try_from(writer).expect("few");
                let records = if checkpoint == EMPTY && writer == 1 { 0 } else { RECORDS };
                let rest = u64::saturating_sub(records, early[index]);
                self.write(pair, writer, &mut positions[index], rest).await?;
            }
            let mut transactions = std::mem::take(&mut carried);
            for pair in &mut writers {
                transactions.extend(self.prepare(pair, checkpoint).await?);
            }
            if checkpoint == FAILED {
                carried = transactions;
                early.fill(0);
                continue;
            }
            self.step("complete.before")?;
            let (positions_now, stored) = (positions.clone(), transactions.clone());
            self.append(Entry::Completed { checkpoint, positions: positions_now, transactions: stored })?;
            self.step("complete.after")?;
            if checkpoint == REVOKED {
                self.append(Entry::Revoked { checkpoint })?;
                self.revoke(&mut writers[0].committer, &transactions).await?;
                return Ok(Ended::Restart);
            }
            // The task goes on while the committers work. The empty interval stays empty.
            let ahead = if checkpoint < LAST && checkpoint + 1 != EMPTY { EARLY } else { 0 };
            for (writer, pair) in (0..).zip(&mut writers) {
                let index = usize::try_from(writer).expect("few");
                self.write(pair, writer, &mut positions[index], ahead).await?;
                early[index] = ahead;
            }
            self.commit(&mut writers[0].committer, checkpoint, &transactions).await?;
        }
        Ok(Ended::Finished)
    }

    async fn write(&self, pair: &mut Pair<S>, writer: u64, position: &mut u64, records: u64) -> Result<()> {
        if records == 0 {
            return Ok(());
        }
        self.step("write.before")?;
        let numbers = (*position..*position + records).map(|at| at * WRITERS + writer);
        pair.write(&self.script.subject, numbers).await?;
        *position += records;
        self.step("write.after")
    }

    async fn prepare(&self, pair: &mut Pair<S>, checkpoint: u64) -> Result<Option<Stored<Prepared<S>>>> {
        let id = pair.id(checkpoint);
        self.step("seal.before")?;
        let Some(sealed) = pair.writer.seal(&id)? else {
            assert_eq!(checkpoint, EMPTY, "a writer that has written sealed nothing");
            return Ok(None);
        };
        self.step("prepare.before")?;
        let prepared = pair.committer.prepare(&id, sealed).await?;
        self.step("prepare.after")?;
        Ok(Some(Stored { id, prepared }))
    }

    async fn commit(
        &mut self,
        committer: &mut <S::Sink as TwoPhaseSink>::Committer,
        checkpoint: u64,
        transactions: &[Stored<Prepared<S>>],
    ) -> Result<()> {
        for Stored { id, prepared } in transactions {
            self.step("commit.before")?;
            self.commit_again(committer, id, prepared).await?;
            self.step("commit.after")?;
        }
        self.step("confirm.before")?;
        self.append(Entry::Confirmed { checkpoint })?;
        self.step("confirm.after")
    }

    async fn revoke(
        &self,
        committer: &mut <S::Sink as TwoPhaseSink>::Committer,
        transactions: &[Stored<Prepared<S>>],
    ) -> Result<()> {
        for Stored { id, prepared } in transactions {
            self.step("revoke.before")?;
            assert!(
                committer.revoke(id, prepared).await?,
                "{id:?} was never committed and must be revocable"
            );
            self.step("revoke.after")?;
        }
        Ok(())
    }

    /// Commits as an engine does, which tries again what may pass.
    async fn commit_again<C: Committer>(
        &self,
        committer: &mut C,
        id: &TransactionId,
        prepared: &C::Prepared,
    ) -> Result<()> {
        let mut tries = 1;
        loop {
            let why = match committer.commit(id, prepared).await {
                Ok(CommitOutcome::Committed) => return Ok(()),
                Ok(CommitOutcome::Retry(why)) => Error::retryable(why),
                Ok(CommitOutcome::Lost(what)) => panic!("a completed transaction is lost: {what}"),
                Err(error) => error,
            };
            if tries == COMMIT_TRIES || why.kind() != ErrorKind::Retryable {
                return Err(why);
            }
            self.script.try_again();
            tries += 1;
        }
    }
}
