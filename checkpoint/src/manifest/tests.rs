#![allow(clippy::unwrap_used)]
use types::{
    AttemptId, CheckpointId, Digest, ErrorKind, ExpiryClocks, ExpiryTimes, JobId, KeyGroup, KeyGroupRange,
    Lineage, MaxParallelism, Run, RunIdentity, SnapshotFile, SubtaskIndex, Timestamp, Uid,
};

use super::*;

/// Two operators, two subtasks each: a keyed one that was rescaled, so that both of its subtasks list one file, and a
/// sink with a prepared transaction.
fn manifest() -> Manifest {
    let max_parallelism = MaxParallelism(4);
    let subtask = |index: u32, groups, runs| SubtaskSnapshot {
        subtask: SubtaskIndex(index),
        groups,
        runs,
        lists: Vec::new(),
        prepared: Vec::new(),
        watermark: Timestamp(-1),
        processing_time: Timestamp(1_000),
    };
    let keyed = |index| {
        let groups = max_parallelism.range(SubtaskIndex(index), 2);
        subtask(index, groups, vec![run("attempt-0/runs/count/0-1.run", 0, groups)])
    };
    let none = KeyGroupRange { start: 0, end: 0 };
    let mut sinks = [subtask(0, none, Vec::new()), subtask(1, none, Vec::new())];
    sinks[1].prepared = vec![PreparedTransaction {
        lineage: Lineage(2),
        writer: SubtaskIndex(1),
        attempt: AttemptId(3),
        checkpoint: CheckpointId(6),
        payload: vec![1, 2, 3],
        file: Some(file("attempt-3/prepared/out/1-6")),
    }];
    sinks[0].lists = vec![ListPart {
        name: "offsets".into(),
        redistribution: Redistribution::Union,
        codec: "bincode2".into(),
        shape: vec![9],
        elements: [vec![7], Vec::new()].into_iter().collect(),
    }];
    let count = StateDescription {
        name: "count".into(),
        kind: "value".into(),
        codec: "bincode2".into(),
        shape: vec![5],
        map_key_shape: Vec::new(),
    };
    let operator = |uid, states, subtasks: Vec<_>| OperatorSnapshot {
        uid: Uid::new(uid).unwrap(),
        kind: "fold".into(),
        parallelism: 2,
        key_shape: Vec::new(),
        states,
        subtasks,
        enumerator: None,
    };
    Manifest {
        kind: SnapshotKind::Checkpoint,
        job_name: "word-count".into(),
        job: JobId(1),
        lineage: Lineage(2),
        attempt: AttemptId(3),
        checkpoint: CheckpointId(7),
        max_parallelism,
        drained: false,
        ended: true,
        triggered_at: Timestamp(1_700_000_000_000),
        operators: vec![
            operator("count", vec![count], vec![keyed(0), keyed(1)]),
            operator("out", Vec::new(), sinks.to_vec()),
        ],
    }
}

fn file(path: &str) -> SnapshotFile {
    SnapshotFile { path: path.into(), len: 300, digest: Digest(0x0123_4567_89ab_cdef) }
}

fn run(path: &str, subtask: u32, groups: KeyGroupRange) -> Run {
    let operator = Uid::new("count").unwrap();
    Run {
        file: file(path),
        identity: RunIdentity {
            job: JobId(1),
            attempt: AttemptId(0),
            operator,
            subtask: SubtaskIndex(subtask),
            number: 1,
        },
        groups,
        without: vec!["a".to_owned(), "b".to_owned()],
        entries: 10,
        tombstones: 2,
        plain_bytes: 500,
    }
}

#[test]
fn a_manifest_comes_back_as_it_was_and_lists_each_file_once() {
    let manifest = manifest();
    assert_eq!(decode("m", &encode(&manifest).unwrap()).unwrap(), manifest);
    let files: Vec<_> = manifest.files().into_iter().map(|file| file.path.as_str()).collect();
    assert_eq!(files, ["attempt-0/runs/count/0-1.run", "attempt-3/prepared/out/1-6"]);
}

#[test]
fn every_changed_byte_is_noticed() {
    let bytes = encode(&manifest()).unwrap();
    for at in 0..bytes.len() {
        let mut changed = bytes.to_vec();
        changed[at] ^= 1 << (at % 8);
        let error = decode("attempt-3/manifest-7", &changed).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "byte {at}");
        assert!(error.message().contains("attempt-3/manifest-7"), "{error}");
        assert!(decode("m", &bytes[..at]).is_err(), "cut at {at}");
    }
}

/// The bytes are a promise: a change of them needs a new version and a reader for the old one.
#[test]
fn the_bytes_are_these() {
    let hex: String = encode(&manifest()).unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, GOLDEN);
}

const GOLDEN: &str = "\
    54474d414e49460001000000410100000000000014581dd3000a776f72642d636f756e7401020307040001fd00d0ca9f\
    170300000205636f756e7404666f6c6402000105636f756e740576616c75650862696e636f6465320105000200000201\
    1c617474656d70742d302f72756e732f636f756e742f302d312e72756efb2c01fdefcdab8967452301010005636f756e\
    740001000202016101620a02fbf401000001fbd007010204011c617474656d70742d302f72756e732f636f756e742f30\
    2d312e72756efb2c01fdefcdab8967452301010005636f756e740001020402016101620a02fbf401000001fbd0070003\
    6f757404666f6c64020000020000000001076f666673657473010862696e636f6465320109020107000001fbd0070100\
    000000010201030603010203011a617474656d70742d332f70726570617265642f6f75742f312d36fb2c01fdefcdab89\
    6745230101fbd0070006a39be0e0b43c168fa657e6174c21eb";

type Change = fn(&mut Manifest);

/// What says so of the first of these key groups, and of each one that follows.
fn clocks(groups: &[u16]) -> ListPart {
    let times = |_| ExpiryTimes { event: Timestamp(5), processing: Timestamp(6) };
    ListPart::of_expiry_clocks(&ExpiryClocks::new(groups[0], groups.iter().map(times))).unwrap()
}

/// The state of the first operator expires.
fn expire(manifest: &mut Manifest) {
    let operator = &mut manifest.operators[0];
    operator.states[0].kind = "value, processing-time ttl".to_owned();
    for subtask in &mut operator.subtasks {
        let groups: Vec<u16> = (subtask.groups.start..subtask.groups.end).collect();
        subtask.lists = vec![clocks(&groups)];
    }
}

#[test]
fn state_that_expires_comes_back_with_its_clocks() {
    let mut manifest = manifest();
    expire(&mut manifest);
    assert_eq!(decode("m", &encode(&manifest).unwrap()).unwrap(), manifest);
    let subtask = &manifest.operators[0].subtasks[1];
    let at = subtask.expiry_clocks().unwrap().at(KeyGroup(subtask.groups.start));
    assert_eq!(at.processing, Timestamp(6));
}

#[test]
fn each_invariant_is_enforced_before_writing_and_after_reading() {
    let cases: &[(&str, Change)] = &[
        ("numbers-in-range", |m| m.checkpoint = CheckpointId(0)),
        ("numbers-in-range", |m| m.max_parallelism = MaxParallelism(0)),
        ("numbers-in-range", |m| m.job_name.clear()),
        ("uids-in-order", |m| m.operators.swap(0, 1)),
        ("uids-in-order", |m| m.operators[1] = m.operators[0].clone()),
        ("subtasks-complete", |m| drop(m.operators[0].subtasks.pop())),
        ("subtasks-complete", |m| m.operators[0].subtasks.swap(0, 1)),
        ("subtasks-complete", |m| m.operators[1].parallelism = 3),
        ("states-in-order", |m| {
            let state = m.operators[0].states[0].clone();
            m.operators[0].states.push(state);
        }),
        ("broadcast-in-first", |m| {
            let mut part = m.operators[1].subtasks[0].lists[0].clone();
            part.redistribution = Redistribution::Broadcast;
            m.operators[1].subtasks[1].lists.push(part);
        }),
        ("groups-partition", |m| m.operators[0].subtasks[1].groups.start = 1),
        ("groups-partition", |m| m.operators[0].subtasks[1].groups.end = 3),
        ("groups-partition", |m| m.operators[1].subtasks[0].groups.end = 2),
        ("runs-in-own-range", |m| m.operators[0].subtasks[0].runs[0].groups.end = 3),
        ("runs-in-own-range", |m| m.operators[0].subtasks[0].runs[0].groups.end = 0),
        ("expiring-has-clocks", |m| m.operators[0].states[0].kind = "value, event-time ttl".to_owned()),
        ("expiring-has-clocks", |m| {
            expire(m);
            m.operators[0].states[0].kind = "value".to_owned();
        }),
        ("expiring-has-clocks", |m| {
            expire(m);
            m.operators[0].subtasks[1].lists.clear();
        }),
        ("expiring-has-clocks", |m| {
            expire(m);
            m.operators[0].subtasks[1].lists[0] = clocks(&[1, 1]);
        }),
        ("expiring-has-clocks", |m| {
            expire(m);
            let cut =
                m.operators[0].subtasks[1].lists[0].elements.iter().map(|it| it[1..].to_vec()).collect();
            m.operators[0].subtasks[1].lists[0].elements = cut;
        }),
        ("run-of-one-operator", |m| {
            let run = m.operators[0].subtasks[0].runs[0].clone();
            m.operators[1].subtasks[0].runs.push(run);
        }),
        ("dropped-states-in-order", |m| m.operators[0].subtasks[0].runs[0].without.swap(0, 1)),
        ("dropped-states-in-order", |m| m.operators[0].subtasks[0].runs[0].without[1] = "a".to_owned()),
        ("run-counts", |m| m.operators[0].subtasks[0].runs[0].tombstones = 11),
        ("prepared-in-order", |m| m.operators[1].subtasks[1].prepared[0].checkpoint = CheckpointId(8)),
        ("savepoint-holds-no-transaction", |m| m.kind = SnapshotKind::Savepoint),
        ("paths-well-formed", |m| {
            for subtask in &mut m.operators[0].subtasks {
                subtask.runs[0].file.path = "../../etc/passwd".into();
            }
        }),
        ("one-description-per-file", |m| m.operators[0].subtasks[1].runs[0].file.len += 1),
        ("one-description-per-file", |m| m.operators[0].subtasks[1].runs[0].identity.number += 1),
    ];
    for (name, change) in cases {
        let mut manifest = manifest();
        change(&mut manifest);
        let violation = invariants::violation(&manifest).unwrap_or_else(|| panic!("{name} is not enforced"));
        assert_eq!(violation.name, *name, "{violation}");
        assert_eq!(encode(&manifest).unwrap_err().kind(), ErrorKind::Internal);
        let bytes = file::ENVELOPE.seal(&manifest).unwrap();
        let error = decode("attempt-3/manifest-7", &bytes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.message().contains(name), "{error}");
    }
}
