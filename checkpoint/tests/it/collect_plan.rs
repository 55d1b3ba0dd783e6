//! The plan of the collection against histories of every kind: what it marks nothing needs any more, and what nothing needs
//! it marks in the end.

use std::collections::{BTreeMap, BTreeSet};

use env::StoreEntry;
use proptest::prelude::*;
use tidegate_checkpoint::{
    collect::{Facts, plan},
    history::{CheckpointKind, Completion, Kind, Record},
    storage::paths,
};
use types::{AttemptId, CheckpointId, Digest, SnapshotFile, SubtaskIndex, Timestamp, Uid};

use crate::fixture::start_record;

/// What happens next; numbers are taken modulo what there is.
#[derive(Clone, Debug)]
enum Step {
    /// The task writes a run, after it has merged its older ones into one or not, and a checkpoint lists them all.
    Complete { merges: bool },
    /// The same, but the checkpoint fails; the task goes on to list the run.
    Fail,
    /// The sinks have committed everything.
    Confirm,
    /// A new attempt restores the last checkpoint.
    Restart,
    /// Garbage is marked while one checkpoint is being read, one manifest cannot be read, or neither.
    Mark { retain: usize, reading: Option<usize>, damaged: Option<usize>, lists: bool },
    /// The files of the oldest mark are deleted.
    Delete,
}

fn step() -> impl Strategy<Value = Step> {
    let mark =
        (0..4_usize, prop::option::of(0..4_usize), prop::option::weighted(0.2, 0..4_usize), any::<bool>());
    let mark =
        mark.prop_map(|(retain, reading, damaged, lists)| Step::Mark { retain, reading, damaged, lists });
    prop_oneof![
        4 => any::<bool>().prop_map(|merges| Step::Complete { merges }),
        1 => Just(Step::Fail),
        2 => Just(Step::Confirm),
        1 => Just(Step::Restart),
        4 => mark,
        2 => Just(Step::Delete),
    ]
}

/// A job as far as files go: one task.
struct Job {
    newest: Record,
    store: BTreeSet<String>,
    /// The files of every checkpoint that was ever completed.
    files: BTreeMap<CheckpointId, BTreeSet<String>>,
    /// What the task lists.
    runs: BTreeSet<String>,
    written: u64,
    next: CheckpointId,
}

impl Job {
    fn new() -> Self {
        Self {
            newest: start_record(None, 1),
            store: BTreeSet::new(),
            files: BTreeMap::new(),
            runs: BTreeSet::new(),
            written: 0,
            next: CheckpointId(1),
        }
    }

    fn attempt(&self) -> AttemptId {
        self.newest.standing.attempt.id
    }

    fn append(&mut self, kind: Kind) {
        self.newest = Record::after(Some(&self.newest), Timestamp(0), kind).expect("the record fits");
    }

    fn write_run(&mut self) {
        self.written += 1;
        let uid = Uid::new("counts").unwrap();
        let path = paths::run(self.attempt(), &uid, SubtaskIndex(0), self.written);
        self.runs.insert(path.clone());
        self.store.insert(path);
    }

    /// Cuts a checkpoint and writes all of it; its manifest.
    fn write_checkpoint(&mut self) -> SnapshotFile {
        self.write_run();
        let path = paths::manifest(self.attempt(), self.next);
        self.store.insert(path.clone());
        SnapshotFile { path, len: 1, digest: Digest(self.next.0.into()) }
    }

    /// Holds what the plan says to what may be said, and follows it.
    fn mark(
        &mut self,
        retain: usize,
        running: &BTreeSet<CheckpointId>,
        damaged: Option<CheckpointId>,
        lists: bool,
    ) -> bool {
        let listing: Vec<_> =
            self.store.iter().map(|path| StoreEntry { path: path.clone(), len: 1 }).collect();
        let standing = &self.newest.standing;
        let held: BTreeSet<_> = standing.held().iter().map(|held| held.checkpoint).collect();
        let mut files = self.files.clone();
        files.retain(|checkpoint, _| held.contains(checkpoint) && Some(*checkpoint) != damaged);
        let listing = lists.then_some(&*listing);
        let found = plan(&Facts { standing, retain, files: &files, running, listing }).mark;
        let Some(mark) = found else { return false };

        let marked: BTreeSet<_> = standing.garbage.iter().flat_map(|mark| mark.files.clone()).collect();
        let dropped: BTreeSet<_> = mark.checkpoints.iter().copied().collect();
        let kept: Vec<_> = held.difference(&dropped).collect();
        assert!(kept.iter().all(|kept| Some(**kept) != damaged), "nobody knows what {damaged:?} needs");
        for file in &mark.files {
            assert!(!marked.contains(file), "{file} is marked already");
            assert!(!self.runs.contains(file), "the task lists {file}");
            assert!(
                kept.iter().all(|kept| !self.files[kept].contains(file)),
                "a kept checkpoint needs {file}"
            );
        }
        for checkpoint in &dropped {
            assert!(!running.contains(checkpoint) && !standing.needs(*checkpoint), "{checkpoint} is dropped");
        }
        let left: Vec<_> = standing.completed.iter().filter(|it| !dropped.contains(&it.checkpoint)).collect();
        assert!(left.len() >= retain.max(1).min(standing.completed.len()), "too few are retained");
        assert!(dropped.iter().all(|dropped| left.last().is_some_and(|last| last.checkpoint > *dropped)));
        self.append(Kind::GarbageMarked(mark));
        true
    }

    /// Deletes what the oldest mark lists.
    fn delete(&mut self) -> bool {
        let Some(mark) = self.newest.standing.garbage.first().cloned() else { return false };
        self.store.retain(|file| !mark.files.contains(file));
        self.append(Kind::GarbageDone(mark.number));
        true
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Complete { merges } => {
                if merges {
                    self.runs.clear();
                    self.write_run();
                }
                let manifest = self.write_checkpoint();
                let files = self.runs.iter().cloned().chain([manifest.path.clone()]).collect();
                self.files.insert(self.next, files);
                let checkpoint = self.next;
                let kind = CheckpointKind::Ordinary;
                self.append(Kind::CheckpointCompleted(Completion { checkpoint, manifest, kind }));
                self.next = self.next.next();
            }
            Step::Fail => {
                self.write_checkpoint();
                self.next = self.next.next();
            }
            Step::Confirm => {
                if let Some(&last) = self.newest.standing.unconfirmed.last() {
                    self.append(Kind::SinksConfirmed(last));
                }
            }
            Step::Restart => {
                self.newest = start_record(Some(&self.newest), 1);
                let restored = self.newest.standing.attempt.restores.checkpoint();
                let files = restored.map(|restored| self.files[&restored].clone()).unwrap_or_default();
                self.runs = files.into_iter().filter(|file| file.ends_with(".run")).collect();
                self.next = self.newest.standing.highest_checkpoint.next();
            }
            Step::Mark { retain, reading, damaged, lists } => {
                let held: Vec<_> = self.newest.standing.held().iter().map(|held| held.checkpoint).collect();
                let one = |place: Option<usize>| Some(*held.get(place? % held.len().max(1))?);
                let running = one(reading).into_iter().collect();
                let _ = self.mark(retain, &running, one(damaged), lists);
            }
            Step::Delete => {
                let _ = self.delete();
            }
        }
        let held = self.newest.standing.held();
        let needed = held.iter().flat_map(|held| &self.files[&held.checkpoint]).chain(&self.runs);
        let lost: Vec<_> = needed.filter(|file| !self.store.contains(*file)).collect();
        assert!(lost.is_empty(), "{lost:?} are needed and gone");
    }

    /// Collects until nothing is left to collect; then what is there is needed, or the living attempt's own.
    fn settle(&mut self) {
        self.take(Step::Confirm);
        while self.mark(1, &BTreeSet::new(), None, true) | self.delete() {}
        let standing = &self.newest.standing;
        assert_eq!(standing.completed.len(), 1.min(self.files.len()), "one checkpoint is retained");
        let held = standing.held();
        let needed: BTreeSet<_> = held.iter().flat_map(|held| &self.files[&held.checkpoint]).collect();
        let own = format!("attempt-{}/", self.attempt());
        let left = self.store.iter().filter(|file| !needed.contains(file) && !file.starts_with(&own));
        assert_eq!(left.collect::<Vec<_>>(), [""; 0], "nobody needs them");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_needed_is_marked_and_nothing_else_stays(steps in prop::collection::vec(step(), 1..60)) {
        let mut job = Job::new();
        steps.into_iter().for_each(|step| job.take(step));
        job.settle();
        // What was the last attempt's own is no longer that, but for what its successor restores.
        job.take(Step::Restart);
        job.settle();
    }
}
