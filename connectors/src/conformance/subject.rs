//! What the kits need to know of a sink.

use std::{future::Future, path::Path};

use engine::api::sink::{SinkContext, TwoPhaseSink};
use env::Env;
use types::{AttemptId, JobId, Lineage, Result, SubtaskIndex, Uid};

/// A two-phase sink under test: how to make it, what to write, and what a stranger reads.
pub trait SinkSubject: Sized + Send + Sync + 'static {
    /// The sink.
    type Sink: TwoPhaseSink;

    /// A subject that writes to a place of its own below `dir`; the same `dir` is the same place, also in another process.
    fn at(dir: &Path) -> Self;

    /// The sink. Every call gives one that writes to the same place.
    fn sink(&self) -> Self::Sink;

    /// The record that stands for `number`.
    fn record(&self, number: u64) -> <Self::Sink as TwoPhaseSink>::In;

    /// The numbers of all records that a reader sees now, in any order, and as often as they are there.
    fn visible(&self, env: &Env) -> impl Future<Output = Result<Vec<u64>>> + Send;
}

/// The job to which the kits' sinks belong.
pub(super) const JOB: JobId = JobId(0x10b);
/// Its line of history.
pub(super) const LINEAGE: Lineage = Lineage(0x11);

/// Where a sink of the kits runs.
pub(super) fn context(env: &Env, lineage: Lineage, attempt: u64, writer: u32) -> SinkContext {
    let uid = Uid::new("conformance").expect("the name is allowed");
    SinkContext {
        names: vec![uid.clone()],
        uid,
        env: env.clone(),
        job: JOB,
        lineage,
        attempt: AttemptId(attempt),
        subtask: SubtaskIndex(writer),
        parallelism: 2,
        checkpoints: "/checkpoints".to_owned(),
    }
}

/// The same after the sink was renamed: for its new name, and for the one that it had before.
pub(super) fn renamed(env: &Env, attempt: u64) -> [SinkContext; 2] {
    let former = context(env, LINEAGE, attempt, 0);
    let new = Uid::new("renamed").expect("the name is allowed");
    let names = vec![new.clone(), former.uid.clone()];
    let present = SinkContext { uid: new, names: names.clone(), ..former.clone() };
    [present, SinkContext { names, ..former }]
}

/// The records that a reader sees, sorted.
pub(super) async fn visible<S: SinkSubject>(subject: &S, env: &Env) -> Vec<u64> {
    let mut numbers = subject.visible(env).await.expect("what is committed can be read");
    numbers.sort_unstable();
    numbers
}
