//! Which copies stay, against every order of events.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use tidegate_checkpoint::local_recovery::plan::{Copies, Purpose};
use types::{AttemptId, CheckpointId};

use super::run_path;

/// What happens next; numbers are taken modulo what there is.
#[derive(Clone, Debug)]
enum Step {
    /// So many bytes of a new file, in so many writes; it is given up at the end or not.
    Write { bytes: u64, writes: u64, gives_up: bool },
    /// One of the older files is fetched, if there is no copy.
    Fetch { which: usize },
    /// A checkpoint lists some files: those whose bit is set.
    List { bits: u32 },
    /// The newest listed checkpoint is completed.
    Complete,
    /// A new attempt begins with the last completed checkpoint.
    Begin,
    /// A copy turns out to be damaged.
    Damage { which: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..60_u64, 1..4_u64, prop::bool::weighted(0.1))
            .prop_map(|(bytes, writes, gives_up)| Step::Write { bytes, writes, gives_up }),
        2 => any::<usize>().prop_map(|which| Step::Fetch { which }),
        3 => any::<u32>().prop_map(|bits| Step::List { bits }),
        3 => Just(Step::Complete),
        1 => Just(Step::Begin),
        1 => any::<usize>().prop_map(|which| Step::Damage { which }),
    ]
}

/// The disk, and what the job knows.
#[derive(Default)]
struct Model {
    disk: BTreeMap<String, u64>,
    lens: BTreeMap<String, u64>,
    listed: BTreeMap<CheckpointId, BTreeSet<String>>,
    completed: CheckpointId,
    attempt: u64,
    /// Nothing was listed since the attempt began: it restores.
    is_restoring: bool,
}

impl Model {
    fn remove(&mut self, gone: Vec<String>) {
        for path in gone {
            assert!(self.disk.remove(&path).is_some(), "{path} is not there");
        }
    }

    /// What the last completed checkpoint lists.
    fn needed(&self) -> BTreeSet<String> {
        self.listed.get(&self.completed).cloned().unwrap_or_default()
    }

    fn nth(&self, which: usize) -> Option<String> {
        let at = which.checked_rem(self.lens.len())?;
        self.lens.keys().nth(at).cloned()
    }

    fn copy(&mut self, copies: &mut Copies, path: &str, writes: u64, purpose: Purpose) -> Option<()> {
        let len = self.lens[path];
        for write in 1..=writes {
            let part = if write == writes { len - len / writes * (writes - 1) } else { len / writes };
            let Some(gone) = copies.reserve(path, part, purpose) else {
                copies.forget(path);
                return None;
            };
            assert!(purpose == Purpose::Written || gone.is_empty(), "a restore needs them all");
            self.remove(gone);
        }
        copies.written(path);
        self.disk.insert(path.to_owned(), len);
        Some(())
    }
}

proptest! {
    #[test]
    fn copies_stay_within_their_limit_and_only_those_go_that_must(
        limit in 20..200_u64,
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let (mut copies, mut model) = (Copies::new(limit), Model::default());
        let mut next = CheckpointId(1);
        for step in steps {
            match step {
                Step::Write { bytes, writes, gives_up } => {
                    let path = run_path(model.attempt, model.lens.len() as u64);
                    prop_assert!(copies.wants(&path));
                    prop_assert!(!copies.wants(&run_path(model.attempt + 1, 1)));
                    model.lens.insert(path.clone(), bytes);
                    let fits = model.copy(&mut copies, &path, writes, Purpose::Written).is_some();
                    prop_assert_eq!(fits, bytes <= limit);
                    if gives_up && fits {
                        copies.forget(&path);
                        model.disk.remove(&path);
                    }
                }
                Step::Fetch { which } => {
                    let needed = model.needed();
                    let is_wanted = |path: &String| needed.contains(path) && !copies.has(path);
                    if model.is_restoring && let Some(path) = model.nth(which).filter(is_wanted) {
                        let fits = copies.bytes() + model.lens[&path] <= limit;
                        let made = model.copy(&mut copies, &path, 1, Purpose::Fetched).is_some();
                        prop_assert_eq!(made, fits);
                    }
                }
                Step::List { bits } => {
                    model.is_restoring = false;
                    let chosen = model.lens.keys().rev().take(32).enumerate();
                    let chosen: BTreeSet<String> =
                        chosen.filter(|(at, _)| bits >> at & 1 == 1).map(|(_, path)| path.clone()).collect();
                    chosen.iter().for_each(|path| copies.listed(next, path));
                    model.listed.insert(next, chosen);
                    next = CheckpointId(next.0 + 1);
                }
                Step::Complete => {
                    let Some((&newest, needed)) = model.listed.last_key_value() else { continue };
                    let ever: BTreeSet<String> = model.listed.values().flatten().cloned().collect();
                    let (needed, before) = (needed.clone(), model.disk.clone());
                    model.completed = newest;
                    let gone = copies.completed(newest);
                    for path in before.keys() {
                        let is_old = !path.starts_with(&format!("attempt-{}/", model.attempt));
                        let goes = !needed.contains(path) && (ever.contains(path) || is_old);
                        prop_assert_eq!(gone.contains(path), goes, "{}", path);
                    }
                    model.remove(gone);
                }
                Step::Begin => {
                    model.attempt += 1;
                    model.is_restoring = true;
                    // What tasks of the older attempt had acknowledged completes no more.
                    let completed = model.completed;
                    model.listed.retain(|checkpoint, _| *checkpoint <= completed);
                    let needed = model.needed();
                    let named = needed.iter().map(String::as_str);
                    let gone = copies.begin(AttemptId(model.attempt), model.completed, named);
                    let stays = |path: &&String| needed.contains(*path);
                    let expected: BTreeSet<_> = model.disk.keys().filter(stays).cloned().collect();
                    model.remove(gone);
                    prop_assert_eq!(model.disk.keys().cloned().collect::<BTreeSet<_>>(), expected);
                }
                Step::Damage { which } => {
                    if let Some(path) = model.nth(which) {
                        copies.forget(&path);
                        model.disk.remove(&path);
                    }
                }
            }
            prop_assert_eq!(copies.bytes(), model.disk.values().sum::<u64>());
            prop_assert!(copies.bytes() <= limit);
            for path in model.lens.keys() {
                prop_assert_eq!(copies.has(path), model.disk.contains_key(path), "{}", path);
            }
        }
    }
}

#[test]
fn what_only_old_checkpoints_need_goes_first() {
    let mut copies = Copies::new(30);
    let path = |number| run_path(0, number);
    for number in 1..=3 {
        assert_eq!(copies.reserve(&path(number), 10, Purpose::Written), Some(vec![]));
        copies.written(&path(number));
    }
    // The oldest is needed longest, and the newest is about to be.
    copies.listed(CheckpointId(2), &path(1));
    copies.listed(CheckpointId(1), &path(2));
    assert_eq!(copies.reserve(&path(4), 10, Purpose::Written), Some(vec![path(2)]));
    assert_eq!(copies.reserve(&path(4), 1, Purpose::Written), Some(vec![path(1)]));
    assert_eq!(copies.reserve(&path(4), 19, Purpose::Written), Some(vec![path(3)]));
    assert_eq!(copies.reserve(&path(4), 1, Purpose::Written), None, "what is being written does not go");
}
