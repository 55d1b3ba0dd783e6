#![allow(clippy::unwrap_used)]
use proptest::prelude::*;
use types::{AttemptId, Digest, JobId, MaxParallelism, RunIdentity, SnapshotFile, Timestamp};

use super::*;

fn run(subtask: SubtaskIndex, groups: KeyGroupRange) -> Run {
    let (job, attempt, operator) = (JobId(1), AttemptId(2), Uid::new("count").unwrap());
    Run {
        file: SnapshotFile { path: format!("run-{subtask}"), len: 10, digest: Digest(7) },
        identity: RunIdentity { job, attempt, operator, subtask, number: 1 },
        groups,
        without: Vec::new(),
        entries: 1,
        tombstones: 0,
        plain_bytes: 10,
    }
}

fn part(name: &str, redistribution: Redistribution, elements: impl IntoIterator<Item = u32>) -> ListPart {
    ListPart {
        name: name.to_owned(),
        redistribution,
        codec: String::new(),
        shape: Vec::new(),
        elements: elements.into_iter().map(|element| element.to_le_bytes()).collect(),
    }
}

/// An operator whose subtasks hold a run for each of their key groups' ranges, and lists of every kind.
fn operator(max: MaxParallelism, parallelism: u32) -> OperatorSnapshot {
    let subtask = |index: u32| {
        let (subtask, groups) = (SubtaskIndex(index), max.range(SubtaskIndex(index), parallelism));
        let own = index * 10..index * 10 + index % 4;
        SubtaskSnapshot {
            subtask,
            groups,
            runs: if groups.is_empty() { Vec::new() } else { vec![run(subtask, groups)] },
            lists: (index == 0)
                .then(|| part("broadcast", Redistribution::Broadcast, [1, 2]))
                .into_iter()
                .chain([
                    part("split", Redistribution::Split, own.clone()),
                    part("union", Redistribution::Union, own),
                ])
                .collect(),
            prepared: Vec::new(),
            watermark: Timestamp(0),
            processing_time: Timestamp(0),
        }
    };
    OperatorSnapshot {
        uid: Uid::new("count").unwrap(),
        kind: "count".to_owned(),
        parallelism,
        key_shape: Vec::new(),
        states: Vec::new(),
        subtasks: (0..parallelism).map(subtask).collect(),
        enumerator: None,
    }
}

proptest! {
    #[test]
    fn every_key_group_goes_to_its_owner_once(max in 1_u16..200, old in 1_u32..12, new in 1_u32..12) {
        let max = MaxParallelism(max);
        let operator = operator(max, old);
        for group in max.all().iter() {
            let mut found = Vec::new();
            for index in (0..new).map(SubtaskIndex) {
                let runs = runs(&operator, max.range(index, new), &BTreeSet::new());
                let holding = runs.into_iter().filter(|run| run.groups.contains(group));
                found.extend(holding.map(|run| (run.identity.subtask, index)));
            }
            prop_assert_eq!(found, vec![(max.owner(group, old), max.owner(group, new))]);
        }
    }

    #[test]
    fn list_elements_go_where_their_kind_says(old in 1_u32..12, new in 1_u32..12) {
        let operator = operator(MaxParallelism(128), old);
        let of = |name: &str, lists: &[ListPart]| -> Vec<Vec<u8>> {
            let part = lists.iter().find(|part| part.name == name).unwrap();
            part.elements.iter().map(<[u8]>::to_vec).collect()
        };
        let all: Vec<_> = operator.subtasks.iter().flat_map(|it| of("split", &it.lists)).collect();
        let mut dealt = Vec::new();
        for subtask in (0..new).map(SubtaskIndex) {
            let lists = lists(&operator, subtask, new);
            prop_assert_eq!(of("union", &lists), all.clone());
            prop_assert_eq!(of("broadcast", &lists).len(), 2, "one copy");
            dealt.extend(of("split", &lists));
        }
        let sorted = |mut elements: Vec<Vec<u8>>| { elements.sort(); elements };
        prop_assert_eq!(sorted(dealt), sorted(all), "each element goes to one subtask");
    }
}

/// The watermark of each new subtask, from those of the old ones.
#[track_caller]
fn check_watermarks(old: &[i64], keyed: bool, new: &[Option<i64>]) {
    let max = MaxParallelism(12);
    let mut operator = operator(max, old.len() as u32);
    for (subtask, watermark) in operator.subtasks.iter_mut().zip(old) {
        subtask.watermark = Timestamp(*watermark);
        if !keyed {
            subtask.groups = KeyGroupRange { start: 0, end: 0 };
        }
    }
    let count = new.len() as u32;
    let found: Vec<_> = (0..count)
        .map(|index| watermark(&operator, max.range(SubtaskIndex(index), count), &BTreeSet::new()))
        .collect();
    assert_eq!(found, new.iter().map(|at| at.map(Timestamp)).collect::<Vec<_>>(), "{old:?}, keyed: {keyed}");
}

#[test]
fn a_watermark_is_the_least_of_those_that_meet() {
    check_watermarks(&[30, 10, 20], true, &[Some(30), Some(10), Some(20)]);
    check_watermarks(&[30, 10, 20, 40], true, &[Some(10), Some(20)]);
    check_watermarks(&[30, 20], true, &[Some(30), Some(20), Some(20)]);
    check_watermarks(&[30, 10, 20], true, &[Some(10)]);
    check_watermarks(&[10, 20], true, &[Some(10), Some(10), Some(20), Some(20)]);
    check_watermarks(&[30, 10, 20], false, &[Some(10), Some(10)]);
    // What has ended begins anew; what has seen nothing has no watermark yet.
    check_watermarks(&[i64::MAX, 20], false, &[Some(20), Some(20)]);
    check_watermarks(&[i64::MAX, 20], true, &[None, Some(20)]);
    check_watermarks(&[i64::MAX, i64::MAX], false, &[None]);
    check_watermarks(&[i64::MIN, 20], false, &[None]);
}

#[test]
fn subtasks_of_a_source_without_a_split_say_nothing_of_event_time() {
    let max = MaxParallelism(12);
    let mut source = operator(max, 3);
    assert_eq!(silent(&source), BTreeSet::new(), "it is no source");
    source.enumerator = Some(Vec::new());
    assert_eq!(silent(&source), BTreeSet::new(), "each of them has some");
    source.subtasks[1].lists.clear();
    assert_eq!(silent(&source), BTreeSet::from([SubtaskIndex(1)]));
    for (subtask, watermark) in source.subtasks.iter_mut().zip([30, i64::MIN, 20]) {
        (subtask.watermark, subtask.groups) = (Timestamp(watermark), KeyGroupRange { start: 0, end: 0 });
    }
    assert_eq!(watermark(&source, max.all(), &silent(&source)), Some(Timestamp(20)));
}
