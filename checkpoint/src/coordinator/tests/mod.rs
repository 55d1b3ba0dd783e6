//! The coordinator, driven by hand: two source tasks in front of one task with a sink.

mod ends;
mod failures;
mod lives;
mod property;

use types::{
    AttemptId, Digest, JobId, KeyGroupRange, Lineage, MaxParallelism, SnapshotFile, SubtaskIndex, Timestamp,
    Uid,
};

use super::*;
use crate::{
    barrier::{BarrierKind, complete::OperatorPlan},
    manifest::{PreparedTransaction, SubtaskSnapshot},
};

const ATTEMPT: AttemptId = AttemptId(3);
const SECOND: Duration = Duration::from_secs(1);

fn id(checkpoint: u64) -> CheckpointId {
    CheckpointId(checkpoint)
}

fn at(seconds: u64) -> Monotonic {
    Monotonic(Duration::from_secs(seconds))
}

fn source(subtask: u32) -> TaskId {
    TaskId { chain: 0, subtask: SubtaskIndex(subtask) }
}

fn sink() -> TaskId {
    TaskId { chain: 1, subtask: SubtaskIndex(0) }
}

fn uid() -> Uid {
    Uid::new("sink").expect("a good uid")
}

fn plan() -> Arc<AttemptPlan> {
    Arc::new(AttemptPlan {
        job_name: "job".into(),
        job: JobId(1),
        lineage: Lineage(2),
        attempt: ATTEMPT,
        max_parallelism: MaxParallelism(128),
        tasks: BTreeSet::from([source(0), source(1), sink()]),
        sources: BTreeSet::from([source(0), source(1)]),
        operators: vec![OperatorPlan {
            uid: uid(),
            kind: "sink".into(),
            parallelism: 1,
            key_shape: Vec::new(),
            states: Vec::new(),
            enumerator: false,
            place: None,
        }],
    })
}

fn file(checkpoint: u64) -> SnapshotFile {
    SnapshotFile { path: format!("attempt-3/manifest-{checkpoint}"), len: 1, digest: Digest(0) }
}

/// What the sink task holds; `prepared` transactions make it a committer.
fn part(prepared: usize) -> SubtaskSnapshot {
    let transaction = PreparedTransaction {
        lineage: Lineage(2),
        writer: SubtaskIndex(0),
        attempt: ATTEMPT,
        checkpoint: id(1),
        payload: Vec::new(),
        file: None,
    };
    SubtaskSnapshot {
        subtask: SubtaskIndex(0),
        groups: KeyGroupRange { start: 0, end: 0 },
        runs: Vec::new(),
        lists: Vec::new(),
        prepared: vec![transaction; prepared],
        watermark: Timestamp::MIN,
        processing_time: Timestamp(0),
    }
}

fn report(task: TaskId, report: TaskReport) -> Event {
    Event::Task { attempt: ATTEMPT, task, report }
}

fn injected(subtask: u32, checkpoint: u64) -> Event {
    report(source(subtask), TaskReport::Injected { checkpoint: id(checkpoint) })
}

fn acked(task: TaskId, checkpoint: u64, prepared: usize) -> Event {
    let operators = if task == sink() { vec![(uid(), part(prepared))] } else { Vec::new() };
    report(task, TaskReport::Acked { checkpoint: id(checkpoint), snapshot: TaskSnapshot { task, operators } })
}

fn declined(checkpoint: u64) -> Event {
    report(sink(), TaskReport::Declined { checkpoint: id(checkpoint), reason: "disk full".into() })
}

fn committed(checkpoint: u64) -> Event {
    report(sink(), TaskReport::Committed { checkpoint: id(checkpoint) })
}

fn captured(checkpoint: u64) -> Event {
    let capture = Capture { triggered_at: Timestamp(5), enumerators: BTreeMap::new() };
    Event::Captured { checkpoint: id(checkpoint), capture }
}

fn written(checkpoint: u64) -> Event {
    Event::ManifestWritten { checkpoint: id(checkpoint), file: file(checkpoint) }
}

fn record_failed(kind: ErrorKind) -> Event {
    Event::RecordFailed { error: Error::new(kind, "no answer") }
}

fn job_failed(reason: &str) -> Event {
    Event::JobFailed { kind: ErrorKind::User, reason: reason.into() }
}

fn trigger(request: u64) -> Event {
    Event::TriggerCheckpoint { request: RequestId(request) }
}

fn savepoint(request: u64, dir: &str) -> Event {
    Event::TriggerSavepoint { request: RequestId(request), dir: dir.into() }
}

fn stop(request: u64, drain: bool, savepoint: Option<&str>) -> Event {
    Event::Stop { request: RequestId(request), drain, savepoint: savepoint.map(Into::into) }
}

fn copied(checkpoint: u64, dir: &str) -> Event {
    Event::SavepointCopied { checkpoint: id(checkpoint), dir: dir.into(), manifest: file(checkpoint) }
}

fn copy_failed(checkpoint: u64, dir: &str, kind: ErrorKind) -> Event {
    Event::SavepointFailed { checkpoint: id(checkpoint), dir: dir.into(), error: Error::new(kind, "no luck") }
}

/// A decision in few words.
fn words(decision: &Decision) -> String {
    match decision {
        Decision::Inject(barrier) => format!("inject {} {:?}", barrier.checkpoint, barrier.kind),
        Decision::CancelCheckpoint { checkpoint } => format!("cancel {checkpoint}"),
        Decision::WriteManifest(manifest) => format!("manifest {}", manifest.checkpoint),
        Decision::Record(Record::Completed { checkpoint, .. }) => format!("record completed {checkpoint}"),
        Decision::Record(Record::Confirmed { checkpoint }) => format!("record confirmed {checkpoint}"),
        Decision::Record(Record::Savepoint { checkpoint, dir, .. }) => {
            format!("record savepoint {checkpoint} {dir}")
        }
        Decision::Record(Record::Ended(end)) => format!("record {end:?}"),
        Decision::Commit { checkpoint } => format!("commit {checkpoint}"),
        Decision::CopySavepoint { checkpoint, dir } => format!("copy {checkpoint} {dir}"),
        Decision::ReleaseAssignments { task } => format!("release {}", task.subtask),
        Decision::Collect { pinned } => format!("collect but {}", pinned.len()),
        Decision::Answer { request, result: Ok(answer) } => format!("answer {} {answer:?}", request.0),
        Decision::Answer { request, result: Err(error) } => {
            format!("refuse {} {}", request.0, error.kind().name())
        }
        Decision::Alert { .. } => "alert".into(),
        Decision::Finish(end) => format!("finish {end:?}"),
        Decision::FailJob { error } => format!("fail {}", error.kind().name()),
        Decision::Restart { .. } => "restart".into(),
    }
}

struct Rig {
    coordinator: Coordinator,
    now: Monotonic,
}

impl Rig {
    fn new(settings: Settings) -> Self {
        settings.check().expect("good settings");
        Self { coordinator: Coordinator::new(settings, plan(), id(0)), now: at(0) }
    }

    /// Running, with these settings.
    fn running(settings: Settings) -> Self {
        let mut rig = Self::new(settings);
        rig.expect(Event::TasksRunning, &[]);
        rig
    }

    fn step(&mut self, event: Event) -> Vec<String> {
        self.coordinator.step(self.now, event).iter().map(words).collect()
    }

    #[track_caller]
    fn expect(&mut self, event: Event, decisions: &[&str]) {
        let text = format!("{event:?}");
        assert_eq!(self.step(event), decisions, "after {text}");
    }

    /// Lets time go by and says so.
    #[track_caller]
    fn expect_at(&mut self, seconds: u64, decisions: &[&str]) {
        self.now = at(seconds);
        self.expect(Event::TimePassed, decisions);
    }

    /// From the trigger of `checkpoint` to its whole set of acknowledgements.
    #[track_caller]
    fn acknowledge(&mut self, checkpoint: u64, prepared: usize) {
        self.expect(captured(checkpoint), &[]);
        for subtask in 0..2 {
            self.expect(injected(subtask, checkpoint), &[&format!("release {subtask}")]);
            self.expect(acked(source(subtask), checkpoint, 0), &[]);
        }
        self.expect(acked(sink(), checkpoint, prepared), &[&format!("manifest {checkpoint}")]);
    }

    /// From the trigger of `checkpoint` to its record on the way.
    #[track_caller]
    fn reach_record(&mut self, checkpoint: u64, prepared: usize) {
        self.acknowledge(checkpoint, prepared);
        self.expect(written(checkpoint), &[&format!("record completed {checkpoint}")]);
    }
}
