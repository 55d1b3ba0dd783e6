#![allow(clippy::unwrap_used)]
use std::collections::VecDeque;

use proptest::prelude::*;
use types::{Digest, ExpiryClocks, ExpiryTimes, Lineage, SnapshotFile};

use super::*;

const GROUPS: KeyGroupRange = KeyGroupRange { start: 0, end: 8 };

fn uid() -> Uid {
    Uid::new("count").unwrap()
}

fn run(number: u64) -> Run {
    let (job, attempt, subtask) = (JobId(1), AttemptId(2), SubtaskIndex(0));
    Run {
        file: SnapshotFile { path: format!("run-{number}"), len: 10, digest: Digest(number.into()) },
        identity: RunIdentity { job, attempt, operator: uid(), subtask, number },
        groups: GROUPS,
        without: Vec::new(),
        entries: 1,
        tombstones: 0,
        plain_bytes: 10,
    }
}

fn snapshots() -> Snapshots {
    with_runs(usize::MAX, Vec::new())
}

/// Of a task that has restored these runs, and should list no more than so many.
fn with_runs(max_runs: usize, restored: Vec<Run>) -> Snapshots {
    let task = TaskId { chain: 0, subtask: SubtaskIndex(0) };
    let mut snapshots = Snapshots::new(task, JobId(1), AttemptId(2), max_runs);
    snapshots.add_keyed(0, uid(), restored);
    snapshots
}

fn begin(snapshots: &mut Snapshots, checkpoint: u64) {
    let cut = Cut {
        position: 0,
        uid: uid(),
        is_sink: true,
        groups: GROUPS,
        lists: Vec::new(),
        watermark: Timestamp(0),
        processing_time: Timestamp(0),
    };
    snapshots.begin(CheckpointId(checkpoint), vec![cut], 0, 0);
}

fn seal(snapshots: &mut Snapshots, checkpoint: u64) {
    assert!(snapshots.sealed(0, CheckpointId(checkpoint), Extent::Changes).is_some());
}

fn store(snapshots: &mut Snapshots, checkpoint: u64) {
    snapshots.durable(0, CheckpointId(checkpoint), run(checkpoint));
}

fn whole(snapshots: &mut Snapshots, checkpoint: u64) {
    begin(snapshots, checkpoint);
    seal(snapshots, checkpoint);
    store(snapshots, checkpoint);
}

/// The numbers of the runs in the next acknowledgement, and its checkpoint.
fn acknowledged(snapshots: &mut Snapshots) -> Option<(u64, Vec<u64>)> {
    let ready = snapshots.take_ready()?;
    let runs = &ready.snapshot.operators[0].1.runs;
    Some((ready.checkpoint.0, runs.iter().map(|run| run.identity.number).collect()))
}

fn transaction(checkpoint: u64) -> PreparedTransaction {
    PreparedTransaction {
        lineage: Lineage(3),
        writer: SubtaskIndex(0),
        attempt: AttemptId(2),
        checkpoint: CheckpointId(checkpoint),
        payload: Vec::new(),
        file: None,
    }
}

#[test]
fn the_next_checkpoint_lists_the_run_of_a_failed_one_and_waits_for_it() {
    let mut snapshots = snapshots();
    begin(&mut snapshots, 1);
    seal(&mut snapshots, 1);
    snapshots.cancel(CheckpointId(1));
    whole(&mut snapshots, 2);
    assert_eq!(acknowledged(&mut snapshots), None, "run 1 is not durable yet");
    store(&mut snapshots, 1);
    assert_eq!(acknowledged(&mut snapshots), Some((2, vec![1, 2])), "older runs come first");
}

#[test]
fn a_checkpoint_without_changes_lists_what_was_there() {
    let mut snapshots = snapshots();
    whole(&mut snapshots, 1);
    assert_eq!(acknowledged(&mut snapshots), Some((1, vec![1])));
    begin(&mut snapshots, 2);
    assert_eq!(acknowledged(&mut snapshots), None, "nothing says yet that nothing has changed");
    assert!(snapshots.sealed(0, CheckpointId(2), Extent::Nothing).is_none());
    assert_eq!(acknowledged(&mut snapshots), Some((2, vec![1])));
}

#[test]
fn acknowledgements_come_in_order_and_hold_no_later_run() {
    let mut snapshots = snapshots();
    begin(&mut snapshots, 1);
    seal(&mut snapshots, 1);
    whole(&mut snapshots, 2);
    assert_eq!(acknowledged(&mut snapshots), None);
    store(&mut snapshots, 1);
    assert_eq!(acknowledged(&mut snapshots), Some((1, vec![1])));
    assert_eq!(acknowledged(&mut snapshots), Some((2, vec![1, 2])));
}

#[test]
fn a_merge_takes_only_what_is_complete_and_later_acknowledgements_list_its_run() {
    let mut snapshots = snapshots();
    for checkpoint in 1..=3 {
        whole(&mut snapshots, checkpoint);
    }
    for checkpoint in 1..=2 {
        assert!(acknowledged(&mut snapshots).is_some_and(|(of, _)| of == checkpoint));
    }
    // The acknowledgement of 3 is still to come.
    let mut works = snapshots.begin_merge(CheckpointId(2), |runs| Some(0..runs.len()));
    let work = works.pop().unwrap();
    assert_eq!(work.runs, [run(1), run(2)]);
    assert!(work.includes_oldest);
    assert!(snapshots.begin_merge(CheckpointId(2), |_| Some(0..2)).is_empty(), "one merge at a time");

    snapshots.merged(0, &work.runs, run(99));
    assert_eq!(acknowledged(&mut snapshots), Some((3, vec![99, 3])));
    assert_eq!(snapshots.begin_merge(CheckpointId(3), |runs| Some(0..runs.len())).len(), 1);
}

/// What has expired since the cut of a checkpoint that may list the merged run still lives there.
#[test]
fn a_merge_is_judged_by_the_oldest_checkpoint_under_way() {
    let mut snapshots = snapshots();
    let clocks = |at: i64| {
        let times = ExpiryTimes { event: Timestamp(at), processing: Timestamp::MIN };
        ListPart::of_expiry_clocks(&ExpiryClocks::new(0, [times])).unwrap()
    };
    let whole = |snapshots: &mut Snapshots, checkpoint: u64| {
        whole(snapshots, checkpoint);
        let pending = snapshots.pending.get_mut(&CheckpointId(checkpoint)).unwrap();
        pending.cuts[0].lists.push(clocks(checkpoint as i64));
    };
    for checkpoint in 1..=4 {
        whole(&mut snapshots, checkpoint);
    }
    for checkpoint in 1..=2 {
        assert!(acknowledged(&mut snapshots).is_some_and(|(of, _)| of == checkpoint));
    }
    let merge = |snapshots: &mut Snapshots, completed: u64| {
        let work = snapshots.begin_merge(CheckpointId(completed), |_| Some(0..2)).pop().unwrap();
        snapshots.merge_failed(0);
        work.clocks
    };
    assert_eq!(merge(&mut snapshots, 2), Some(clocks(3)));
    snapshots.cancel(CheckpointId(3));
    assert_eq!(merge(&mut snapshots, 2), Some(clocks(4)));
    assert!(acknowledged(&mut snapshots).is_some_and(|(of, _)| of == 4));
    assert_eq!(merge(&mut snapshots, 4), None, "those to come are not behind what the task says now");
}

/// Only a merge from the oldest run on may drop tombstones: what they hide stands in older runs.
#[test]
fn a_merge_behind_the_oldest_run_says_so() {
    for (range, includes_oldest) in [(0..2, true), (1..3, false)] {
        let mut snapshots = snapshots();
        for checkpoint in 1..=3 {
            whole(&mut snapshots, checkpoint);
            assert!(acknowledged(&mut snapshots).is_some());
        }
        let work = snapshots.begin_merge(CheckpointId(3), |_| Some(range.clone())).pop().unwrap();
        assert_eq!((work.runs.len(), work.includes_oldest), (2, includes_oldest), "{range:?}");
    }
}

#[test]
fn a_failed_merge_changes_nothing_and_may_be_tried_again() {
    let mut snapshots = snapshots();
    whole(&mut snapshots, 1);
    whole(&mut snapshots, 2);
    assert_eq!(acknowledged(&mut snapshots), Some((1, vec![1])));
    assert_eq!(acknowledged(&mut snapshots), Some((2, vec![1, 2])));
    assert_eq!(snapshots.begin_merge(CheckpointId(2), |_| Some(0..2)).len(), 1);
    snapshots.merge_failed(0);
    whole(&mut snapshots, 3);
    assert_eq!(acknowledged(&mut snapshots), Some((3, vec![1, 2, 3])));
    assert_eq!(snapshots.begin_merge(CheckpointId(2), |_| Some(0..2)).len(), 1);
}

#[test]
fn a_checkpoint_that_would_list_too_many_runs_waits_for_the_merge() {
    for ends_well in [true, false] {
        let mut snapshots = with_runs(3, Vec::new());
        for checkpoint in 1..=2 {
            whole(&mut snapshots, checkpoint);
            assert!(acknowledged(&mut snapshots).is_some());
        }
        let work = snapshots.begin_merge(CheckpointId(2), |_| Some(0..2)).pop().unwrap();
        whole(&mut snapshots, 3);
        assert_eq!(acknowledged(&mut snapshots), Some((3, vec![1, 2, 3])), "there is room for it");
        // What nothing is changed for lists no more than the one before.
        begin(&mut snapshots, 4);
        assert!(snapshots.sealed(0, CheckpointId(4), Extent::Nothing).is_none());
        assert_eq!(acknowledged(&mut snapshots), Some((4, vec![1, 2, 3])));
        whole(&mut snapshots, 5);
        assert_eq!(acknowledged(&mut snapshots), None);
        if ends_well {
            snapshots.merged(0, &work.runs, run(99));
            assert_eq!(acknowledged(&mut snapshots), Some((5, vec![99, 3, 5])));
        } else {
            // What merges nothing is not worth a wait.
            snapshots.merge_failed(0);
            assert_eq!(acknowledged(&mut snapshots), Some((5, vec![1, 2, 3, 5])));
        }
    }
}

/// Where merging takes longer than a checkpoint may, one is given up, and not one after the other.
#[test]
fn no_checkpoint_waits_for_a_merge_that_another_waited_for_in_vain() {
    let mut snapshots = with_runs(3, (11..=13).map(run).collect());
    let work = snapshots.begin_merge(CheckpointId(0), |_| Some(0..2)).pop().unwrap();
    whole(&mut snapshots, 1);
    assert_eq!(acknowledged(&mut snapshots), None);
    snapshots.cancel(CheckpointId(1));
    whole(&mut snapshots, 2);
    assert_eq!(acknowledged(&mut snapshots), Some((2, vec![11, 12, 13, 1, 2])));
    snapshots.merged(0, &work.runs, run(99));
    whole(&mut snapshots, 3);
    assert_eq!(acknowledged(&mut snapshots), Some((3, vec![99, 13, 1, 2, 3])));
    // The next merge is waited for again: one more than are there already may be listed meanwhile.
    assert_eq!(snapshots.begin_merge(CheckpointId(3), |_| Some(0..2)).len(), 1);
    whole(&mut snapshots, 4);
    assert_eq!(acknowledged(&mut snapshots), Some((4, vec![99, 13, 1, 2, 3, 4])));
    whole(&mut snapshots, 5);
    assert_eq!(acknowledged(&mut snapshots), None);
}

/// Of several subtasks' runs, after a change of parallelism: not all checkpoints wait until they are few.
#[test]
fn a_list_that_was_too_long_may_grow_by_a_run_during_each_merge() {
    let mut snapshots = with_runs(3, (11..=16).map(run).collect());
    let work = snapshots.begin_merge(CheckpointId(0), |_| Some(0..2)).pop().unwrap();
    whole(&mut snapshots, 1);
    assert_eq!(acknowledged(&mut snapshots), Some((1, vec![11, 12, 13, 14, 15, 16, 1])));
    whole(&mut snapshots, 2);
    assert_eq!(acknowledged(&mut snapshots), None);
    snapshots.merged(0, &work.runs, run(99));
    assert_eq!(acknowledged(&mut snapshots), Some((2, vec![99, 13, 14, 15, 16, 1, 2])));
}

#[test]
fn a_transaction_is_listed_until_it_is_committed() {
    let mut snapshots = snapshots();
    begin(&mut snapshots, 1);
    seal(&mut snapshots, 1);
    store(&mut snapshots, 1);
    snapshots.preparing(CheckpointId(1));
    assert!(snapshots.take_ready().is_none());
    snapshots.cancel(CheckpointId(1));

    let pending = |ready: Ready| {
        let prepared = &ready.snapshot.operators[0].1.prepared;
        prepared.iter().map(|it| it.checkpoint.0).collect::<Vec<_>>()
    };
    whole(&mut snapshots, 2);
    assert!(
        snapshots.take_ready().is_none(),
        "what 1 holds is not prepared yet, and 2 has nothing of its own"
    );
    snapshots.preparing(CheckpointId(2));
    snapshots.prepared(transaction(1));
    assert!(snapshots.take_ready().is_none());
    snapshots.prepared(transaction(2));
    assert_eq!(snapshots.take_ready().map(pending), Some(vec![1, 2]), "what 1 prepared goes into 2");
    snapshots.committed(CheckpointId(2));
    whole(&mut snapshots, 3);
    assert_eq!(snapshots.take_ready().map(pending), Some(vec![]));
}

/// A checkpoint whose run holds all that lived.
fn all_of(snapshots: &mut Snapshots, checkpoint: u64) {
    begin(snapshots, checkpoint);
    assert!(snapshots.sealed(0, CheckpointId(checkpoint), Extent::Whole).is_some());
    store(snapshots, checkpoint);
}

fn nothing(_: &[Run]) -> Option<std::ops::Range<usize>> {
    None
}

#[test]
fn runs_before_one_that_holds_all_are_left_out_once_it_is_complete() {
    let mut snapshots = snapshots();
    whole(&mut snapshots, 1);
    all_of(&mut snapshots, 2);
    whole(&mut snapshots, 3);
    assert_eq!(acknowledged(&mut snapshots), Some((1, vec![1])));
    assert!(snapshots.begin_merge(CheckpointId(1), nothing).is_empty());
    assert_eq!(acknowledged(&mut snapshots), Some((2, vec![1, 2])));
    assert_eq!(acknowledged(&mut snapshots), Some((3, vec![1, 2, 3])));
    // Run 3 is in no checkpoint that is known to be complete.
    snapshots.begin_merge(CheckpointId(2), |runs| {
        assert_eq!(runs.iter().map(|run| run.identity.number).collect::<Vec<_>>(), [2]);
        None
    });
    whole(&mut snapshots, 4);
    assert_eq!(acknowledged(&mut snapshots), Some((4, vec![2, 3, 4])));
    all_of(&mut snapshots, 5);
    all_of(&mut snapshots, 6);
    assert_eq!(acknowledged(&mut snapshots), Some((5, vec![2, 3, 4, 5])));
    assert_eq!(acknowledged(&mut snapshots), Some((6, vec![2, 3, 4, 5, 6])));
    snapshots.begin_merge(CheckpointId(6), nothing);
    whole(&mut snapshots, 7);
    assert_eq!(acknowledged(&mut snapshots), Some((7, vec![6, 7])));
}

#[test]
fn no_run_leaves_the_list_before_a_complete_checkpoint_has_listed_it() {
    let mut snapshots = snapshots();
    for checkpoint in 1..=2 {
        whole(&mut snapshots, checkpoint);
        assert!(acknowledged(&mut snapshots).is_some());
    }
    let work = snapshots.begin_merge(CheckpointId(2), |_| Some(0..2)).pop().unwrap();
    all_of(&mut snapshots, 3);
    assert_eq!(acknowledged(&mut snapshots), Some((3, vec![1, 2, 3])), "what is being merged stays");
    // Its run is there when 3 completes, which does not list it.
    snapshots.merged(0, &work.runs, run(99));
    let merge_all = |runs: &[Run]| (!runs.is_empty()).then_some(0..runs.len());
    assert!(
        snapshots.begin_merge(CheckpointId(3), merge_all).is_empty(),
        "it is merged again only when listed"
    );
    whole(&mut snapshots, 4);
    assert_eq!(acknowledged(&mut snapshots), Some((4, vec![99, 3, 4])));
    snapshots.begin_merge(CheckpointId(4), nothing);
    whole(&mut snapshots, 5);
    assert_eq!(acknowledged(&mut snapshots), Some((5, vec![3, 4, 5])));
}

#[test]
fn a_tombstone_stays_while_an_older_run_does() {
    let mut snapshots = snapshots();
    for checkpoint in 1..=2 {
        whole(&mut snapshots, checkpoint);
        assert!(acknowledged(&mut snapshots).is_some());
    }
    let work = snapshots.begin_merge(CheckpointId(2), |_| Some(0..2)).pop().unwrap();
    whole(&mut snapshots, 3);
    assert_eq!(acknowledged(&mut snapshots), Some((3, vec![1, 2, 3])));
    all_of(&mut snapshots, 4);
    assert_eq!(acknowledged(&mut snapshots), Some((4, vec![1, 2, 3, 4])));
    // Between the acknowledgement of 4 and its completion.
    snapshots.merged(0, &work.runs, run(99));
    snapshots.begin_merge(CheckpointId(4), nothing);
    whole(&mut snapshots, 5);
    assert_eq!(acknowledged(&mut snapshots), Some((5, vec![99, 3, 4, 5])));
    snapshots.begin_merge(CheckpointId(5), nothing);
    whole(&mut snapshots, 6);
    assert_eq!(acknowledged(&mut snapshots), Some((6, vec![4, 5, 6])));
}

/// What happens next to a task whose state has a few keys.
#[derive(Clone, Debug)]
enum Happens {
    /// Keys are written (`true`) or deleted, then a barrier comes.
    Barrier(Vec<(u8, bool)>),
    /// Every key that lives is written, some others are deleted, then a barrier comes.
    BarrierOverAll(Vec<u8>),
    /// The newest checkpoint that is not acknowledged is given up.
    Cancel,
    Acknowledge,
    /// The oldest acknowledged checkpoint completes; a merge of these neighbours begins.
    Complete(usize, usize),
    /// The merge that is under way ends, well or not.
    Merged(bool),
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        4 => proptest::collection::vec((0..6_u8, any::<bool>()), 0..5).prop_map(Happens::Barrier),
        1 => proptest::collection::vec(0..6_u8, 0..3).prop_map(Happens::BarrierOverAll),
        1 => Just(Happens::Cancel),
        6 => Just(Happens::Acknowledge),
        5 => (0..4_usize, 2..5_usize).prop_map(|(start, len)| Happens::Complete(start, len)),
        4 => any::<bool>().prop_map(Happens::Merged),
    ]
}

/// A run: what it says of a key, `None` for a tombstone.
type Content = BTreeMap<u8, Option<u64>>;

/// A task's snapshots with the contents of all runs, and what the state was at each barrier.
struct Model {
    snapshots: Snapshots,
    runs: BTreeMap<u64, Content>,
    state: BTreeMap<u8, u64>,
    at_barrier: BTreeMap<u64, BTreeMap<u8, u64>>,
    open: Vec<u64>,
    acknowledged: VecDeque<u64>,
    merging: Option<MergeWork>,
    checkpoint: u64,
}

impl Model {
    fn barrier(&mut self, changed: Content, extent: Extent) {
        self.checkpoint += 1;
        self.at_barrier.insert(self.checkpoint, self.state.clone());
        begin(&mut self.snapshots, self.checkpoint);
        let extent = if changed.is_empty() { Extent::Nothing } else { extent };
        if self.snapshots.sealed(0, CheckpointId(self.checkpoint), extent).is_some() {
            self.runs.insert(self.checkpoint, changed);
            store(&mut self.snapshots, self.checkpoint);
        }
        self.open.push(self.checkpoint);
    }

    fn write(&mut self, key: u8, puts: bool, changed: &mut Content) {
        let value = puts.then_some(self.checkpoint * 100 + changed.len() as u64);
        match value {
            Some(value) => drop(self.state.insert(key, value)),
            // Nothing is written for a key that is not there.
            None if self.state.remove(&key).is_none() && !changed.contains_key(&key) => return,
            None => {}
        }
        changed.insert(key, value);
    }

    fn step(&mut self, happens: &Happens) {
        match happens {
            Happens::Barrier(writes) => {
                let mut changed = Content::new();
                writes.iter().for_each(|(key, puts)| self.write(*key, *puts, &mut changed));
                self.barrier(changed, Extent::Changes);
            }
            Happens::BarrierOverAll(deleted) => {
                let mut changed = Content::new();
                let all: Vec<_> = self.state.keys().copied().collect();
                all.into_iter().for_each(|key| self.write(key, true, &mut changed));
                deleted.iter().for_each(|key| self.write(*key, false, &mut changed));
                self.barrier(changed, Extent::Whole);
            }
            Happens::Cancel => {
                if let Some(given_up) = self.open.pop() {
                    self.snapshots.cancel(CheckpointId(given_up));
                }
            }
            Happens::Acknowledge => {
                let Some((checkpoint, runs)) = acknowledged(&mut self.snapshots) else {
                    // Everything is durable here: what is open waits for a merge, or nobody would end its wait.
                    return assert!(self.open.is_empty() || self.merging.is_some());
                };
                assert_eq!(self.open.remove(0), checkpoint);
                self.acknowledged.push_back(checkpoint);
                let restored = self.folded(&runs).into_iter().filter_map(|(key, value)| Some((key, value?)));
                assert_eq!(restored.collect::<BTreeMap<_, _>>(), self.at_barrier[&checkpoint], "{runs:?}");
            }
            Happens::Complete(start, len) => {
                let Some(checkpoint) = self.acknowledged.pop_front() else { return };
                let plan = |runs: &[Run]| (start + len <= runs.len()).then(|| *start..start + len);
                let work = self.snapshots.begin_merge(CheckpointId(checkpoint), plan).pop();
                self.merging = work.or(self.merging.take());
            }
            Happens::Merged(well) => {
                let Some(work) = self.merging.take() else { return };
                if !well {
                    return self.snapshots.merge_failed(0);
                }
                let replaced: Vec<_> = work.runs.iter().map(|run| run.identity.number).collect();
                let mut content = self.folded(&replaced);
                content.retain(|_, value| value.is_some() || !work.includes_oldest);
                let number = 1_000 + self.runs.len() as u64;
                self.runs.insert(number, content);
                self.snapshots.merged(0, &work.runs, run(number));
            }
        }
    }

    /// What these runs say, oldest first.
    fn folded(&self, runs: &[u64]) -> Content {
        runs.iter().flat_map(|run| self.runs[run].clone()).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn whatever_happens_an_acknowledgement_restores_what_was_there(all in proptest::collection::vec(happens(), 0..60)) {
        let mut model = Model {
            snapshots: with_runs(4, Vec::new()),
            runs: BTreeMap::new(),
            state: BTreeMap::new(),
            at_barrier: BTreeMap::new(),
            open: Vec::new(),
            acknowledged: VecDeque::new(),
            merging: None,
            checkpoint: 0,
        };
        all.iter().for_each(|happens| model.step(happens));
    }
}
