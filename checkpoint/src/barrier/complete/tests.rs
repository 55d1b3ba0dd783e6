//! Manifests from acknowledgements: what must be there, once.

use types::{CheckpointId, KeyGroupRange, SubtaskIndex};

use super::*;
use crate::manifest::Redistribution;

fn uid(name: &str) -> Uid {
    Uid::new(name).expect("a good uid")
}

fn part(subtask: u32) -> SubtaskSnapshot {
    SubtaskSnapshot {
        subtask: SubtaskIndex(subtask),
        groups: KeyGroupRange { start: 0, end: 0 },
        runs: Vec::new(),
        lists: Vec::new(),
        prepared: Vec::new(),
        watermark: Timestamp(i64::from(subtask)),
        processing_time: Timestamp(0),
    }
}

fn snapshot(subtask: u32, operators: &[&str]) -> TaskSnapshot {
    TaskSnapshot {
        task: TaskId { chain: 0, subtask: SubtaskIndex(subtask) },
        operators: operators.iter().map(|name| (uid(name), part(subtask))).collect(),
    }
}

fn operator_plan(name: &str, parallelism: u32, enumerator: bool) -> OperatorPlan {
    OperatorPlan {
        uid: uid(name),
        kind: "test".into(),
        parallelism,
        key_shape: Vec::new(),
        states: Vec::new(),
        enumerator,
        place: None,
    }
}

fn plan() -> AttemptPlan {
    AttemptPlan {
        job_name: "job".into(),
        job: JobId(1),
        lineage: Lineage(2),
        attempt: AttemptId(3),
        max_parallelism: MaxParallelism(128),
        tasks: BTreeSet::new(),
        sources: BTreeSet::new(),
        operators: vec![operator_plan("words", 2, false), operator_plan("lines", 2, true)],
    }
}

fn capture(enumerators: &[&str]) -> Capture {
    let enumerators = enumerators.iter().map(|name| (uid(name), vec![9])).collect();
    Capture { triggered_at: Timestamp(77), enumerators }
}

fn build(kind: BarrierKind, capture: &Capture, snapshots: &[TaskSnapshot]) -> Result<Manifest> {
    manifest(
        &plan(),
        CheckpointMode::ExactlyOnce,
        Barrier { checkpoint: CheckpointId(5), kind },
        capture,
        snapshots,
    )
}

#[test]
fn operators_are_sorted_and_their_subtasks_in_order() -> Result<()> {
    let snapshots = [snapshot(1, &["lines", "words"]), snapshot(0, &["lines", "words"])];
    let manifest = build(BarrierKind::Checkpoint, &capture(&["lines"]), &snapshots)?;
    let uids: Vec<_> = manifest.operators.iter().map(|operator| operator.uid.as_str()).collect();
    assert_eq!(uids, ["lines", "words"]);
    for operator in &manifest.operators {
        assert_eq!(operator.subtasks, [part(0), part(1)]);
    }
    assert_eq!(manifest.operators[0].enumerator, Some(vec![9]));
    assert_eq!(manifest.operators[1].enumerator, None);
    assert_eq!((manifest.attempt, manifest.checkpoint), (AttemptId(3), CheckpointId(5)));
    assert_eq!((manifest.drained, manifest.ended, manifest.triggered_at), (false, false, Timestamp(77)));
    Ok(())
}

#[test]
fn the_end_and_a_drain_are_marked() -> Result<()> {
    let snapshots = [snapshot(0, &["lines", "words"]), snapshot(1, &["lines", "words"])];
    let marks = |kind| {
        build(kind, &capture(&["lines"]), &snapshots).map(|manifest| (manifest.drained, manifest.ended))
    };
    assert_eq!(marks(BarrierKind::Last)?, (true, true));
    assert_eq!(marks(BarrierKind::Stop { drain: true })?, (true, false));
    assert_eq!(marks(BarrierKind::Stop { drain: false })?, (false, false));
    assert_eq!(marks(BarrierKind::Savepoint)?, (false, false));
    Ok(())
}

#[test]
fn a_missing_doubled_or_foreign_part_is_an_error() {
    let whole = [snapshot(0, &["lines", "words"]), snapshot(1, &["lines", "words"])];
    let refused = |capture: &Capture, snapshots: &[TaskSnapshot], word: &str| {
        let error = build(BarrierKind::Checkpoint, capture, snapshots).expect_err("it is not whole");
        assert!(error.message().contains(word), "{error}");
    };
    refused(&capture(&["lines"]), &whole[..1], "[0]");
    refused(&capture(&["lines"]), &[whole[0].clone(), whole[0].clone()], "[0, 0]");
    refused(&capture(&["lines"]), &[whole[0].clone(), snapshot(1, &["lines"])], "words");
    refused(&capture(&["lines"]), &[whole[0].clone(), snapshot(1, &["lines", "words", "new"])], "new");
    refused(&capture(&[]), &whole, "misses");
    refused(&capture(&["lines", "words"]), &whole, "has the state");
}

/// A checkpoint of two subtasks that have these copies of the broadcast state `rules` of operator `words`.
fn with_copies(mode: CheckpointMode, copies: [&[&[u8]]; 2]) -> Result<Manifest> {
    let snapshots = [(0, copies[0]), (1, copies[1])].map(|(subtask, elements)| {
        let mut snapshot = snapshot(subtask, &["lines", "words"]);
        snapshot.operators[1].1.lists = ["other", "rules"]
            .map(|name| ListPart {
                name: name.to_owned(),
                redistribution: if name == "rules" {
                    Redistribution::Broadcast
                } else {
                    Redistribution::Split
                },
                codec: "test".to_owned(),
                shape: Vec::new(),
                elements: elements.iter().map(|element| element.to_vec()).collect(),
            })
            .into();
        snapshot
    });
    let barrier = Barrier { checkpoint: CheckpointId(5), kind: BarrierKind::Checkpoint };
    manifest(&plan(), mode, barrier, &capture(&["lines"]), &snapshots)
}

#[test]
fn subtasks_that_do_not_have_broadcast_state_alike_are_named() {
    let cases: [([&[&[u8]]; 2], &str); 3] = [
        ([&[b"a", b"b"], &[b"a", b"c"]], "from entry 2 of 2 and 2 on"),
        ([&[b"a", b"b"], &[b"a"]], "from entry 2 of 2 and 1 on"),
        ([&[], &[b"a"]], "from entry 1 of 0 and 1 on"),
    ];
    for (copies, at) in cases {
        let error = with_copies(CheckpointMode::ExactlyOnce, copies).expect_err("they differ");
        assert_eq!(error.kind(), types::ErrorKind::User);
        let text = error.to_string();
        let place = "checkpoint 5: operator words: its subtasks 0 and 1";
        assert!(text.contains(place) && text.contains("\"rules\""), "{text}");
        assert!(text.contains(at), "{text}");
    }
}

#[test]
fn one_copy_of_broadcast_state_is_kept() -> Result<()> {
    let copies: [(CheckpointMode, [&[&[u8]]; 2]); 2] = [
        (CheckpointMode::ExactlyOnce, [&[b"a", b"b"], &[b"a", b"b"]]),
        (CheckpointMode::AtLeastOnce, [&[b"a", b"b"], &[b"a", b"c"]]),
    ];
    for (mode, copies) in copies {
        let manifest = with_copies(mode, copies)?;
        let [first, second] = manifest.operators[1].subtasks.as_slice() else { panic!("two subtasks") };
        let names = |subtask: &SubtaskSnapshot| -> Vec<_> {
            subtask.lists.iter().map(|part| (part.name.clone(), part.elements.len())).collect()
        };
        assert_eq!(names(first), [("other".to_owned(), 2), ("rules".to_owned(), 2)]);
        assert_eq!(names(second), [("other".to_owned(), 2)]);
    }
    Ok(())
}
