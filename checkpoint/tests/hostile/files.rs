//! Small real files of every kind: what the corpus begins with.

use checkpoint::{
    history::{
        AttemptStart, CheckpointKind, CompletedCheckpoint, Completion, EndKind, ForeignSnapshot, GarbageMark,
        Instance, Kind, Origin, Record, Restores, Savepoint, record::encode_hint,
    },
    hostile::{HINT, MANIFEST, RECORD},
    manifest::{
        self, ListPart, Manifest, OperatorSnapshot, PreparedTransaction, Redistribution, SnapshotKind,
        StateDescription, SubtaskSnapshot,
    },
};
use types::{
    AttemptId, Bincode, CheckpointId, Codec, Digest, JobId, KeyGroupRange, Lineage, MaxParallelism,
    RecordNumber, Run, RunIdentity, Shape, SnapshotFile, SubtaskIndex, Timestamp, Uid, hostile::Target,
    serde::Serialize,
};

use crate::corpus::Seed;

const MAX: MaxParallelism = MaxParallelism(8);
const AT: Timestamp = Timestamp(1_700_000_000_000);

fn file(path: &str) -> SnapshotFile {
    SnapshotFile { path: path.to_owned(), len: 1234, digest: Digest::of(path.as_bytes()) }
}

fn start(restores: Restores) -> Kind {
    Kind::AttemptStarted(Box::new(AttemptStart {
        job_name: "word-count".to_owned(),
        job: JobId(1 << 100),
        max_parallelism: MAX,
        lineage: Lineage(2 << 100),
        origin: Origin {
            restored: restores.clone(),
            named: Some("file:///savepoint".to_owned()),
            accepts_foreign_output: true,
            dropped: vec![Uid::new("old").unwrap()],
        },
        instance: Instance(3 << 100),
        process: "pid 12 on host-a".to_owned(),
        parallelism: 2,
        restores,
        abandons: Vec::new(),
    }))
}

fn completed(checkpoint: u64) -> Kind {
    Kind::CheckpointCompleted(Completion {
        checkpoint: CheckpointId(checkpoint),
        manifest: file(&format!("attempt-0/manifest-{checkpoint}")),
        kind: CheckpointKind::Ordinary,
    })
}

/// A history with a record of each kind, the next one after each.
fn records() -> Vec<(&'static str, Record)> {
    let foreign = Restores::Foreign(ForeignSnapshot {
        url: "file:///savepoint".to_owned(),
        manifest: file("manifest"),
        checkpoint: CheckpointId(4),
        max_parallelism: MAX,
    });
    let savepoint = Savepoint {
        checkpoint: CheckpointId(6),
        url: "file:///other".to_owned(),
        manifest: file("manifest"),
    };
    let garbage = GarbageMark {
        checkpoints: vec![CheckpointId(5)],
        files: vec!["attempt-0/manifest-5".to_owned(), "attempt-0/runs/count/0-1.run".to_owned()],
    };
    let own = CompletedCheckpoint {
        checkpoint: CheckpointId(6),
        attempt: AttemptId(0),
        lineage: Lineage(2 << 100),
        manifest: file("attempt-0/manifest-6"),
        kind: CheckpointKind::Ordinary,
        completed_at: AT,
    };
    let kinds = [
        ("started", start(foreign)),
        ("completed", completed(5)),
        ("confirmed", Kind::SinksConfirmed(CheckpointId(5))),
        ("completed-again", completed(6)),
        ("confirmed-again", Kind::SinksConfirmed(CheckpointId(6))),
        ("savepoint", Kind::SavepointCompleted(savepoint)),
        ("marked", Kind::GarbageMarked(garbage)),
        ("revocable", completed(7)),
        ("revoked", Kind::Revoked(CheckpointId(7))),
        ("restarted", start(Restores::Own(own))),
        ("done", Kind::GarbageDone(RecordNumber(6))),
        ("failed", Kind::Ended(EndKind::Failed("the disk is full".to_owned()))),
    ];
    let mut records: Vec<(&str, Record)> = Vec::new();
    for (name, kind) in kinds {
        let before = records.last().map(|(_, record)| record);
        let record = Record::after(before, AT, kind).unwrap_or_else(|error| panic!("{name}: {error}"));
        records.push((name, record));
    }
    records
}

fn run(subtask: u32, number: u64, groups: KeyGroupRange) -> Run {
    Run {
        file: file(&format!("attempt-0/runs/count/{subtask}-{number}.run")),
        identity: RunIdentity {
            job: JobId(1 << 100),
            attempt: AttemptId(0),
            operator: Uid::new("count").unwrap(),
            subtask: SubtaskIndex(subtask),
            number,
        },
        groups,
        without: vec!["dropped".to_owned()],
        entries: 100,
        tombstones: 7,
        plain_bytes: 12_345,
    }
}

/// A keyed operator with several runs, a source with positions, a sink with prepared transactions.
fn manifest(kind: SnapshotKind) -> Manifest {
    let none = KeyGroupRange { start: 0, end: 0 };
    let subtask = |index, groups, runs, lists, prepared| SubtaskSnapshot {
        subtask: SubtaskIndex(index),
        groups,
        runs,
        lists,
        prepared,
        watermark: Timestamp(-1),
        processing_time: AT,
    };
    let list = |name: &str, redistribution| ListPart {
        name: name.to_owned(),
        redistribution,
        codec: "bincode2".to_owned(),
        shape: Shape::U64.to_bytes(),
        elements: (0..5_u8).map(|number| vec![number; usize::from(number)]).collect(),
    };
    let prepared = |checkpoint| PreparedTransaction {
        lineage: Lineage(2 << 100),
        writer: SubtaskIndex(0),
        attempt: AttemptId(0),
        checkpoint: CheckpointId(checkpoint),
        payload: vec![9; 20],
        file: Some(file(&format!("attempt-0/prepared/out/0-{checkpoint}"))),
    };
    let state = |name: &str, kind: &str| StateDescription {
        name: name.to_owned(),
        kind: kind.to_owned(),
        codec: "bincode2".to_owned(),
        shape: Shape::trace::<Vec<(String, u64)>>().to_bytes(),
        map_key_shape: Shape::U32.to_bytes(),
    };
    let operator = |uid: &str, kind: &str, states, subtasks: Vec<SubtaskSnapshot>| OperatorSnapshot {
        uid: Uid::new(uid).unwrap(),
        kind: kind.to_owned(),
        parallelism: subtasks.len() as u32,
        key_shape: if kind == "process" { Shape::Str.to_bytes() } else { Vec::new() },
        states,
        subtasks,
        enumerator: (kind == "source").then(|| vec![1, 2, 3]),
    };
    let keyed = |index| {
        let groups = MAX.range(SubtaskIndex(index), 2);
        let runs = (1..4).map(|number| run(index, number, groups)).collect();
        subtask(index, groups, runs, Vec::new(), Vec::new())
    };
    let lists = vec![
        list("buffer", Redistribution::Split),
        list("rules", Redistribution::Broadcast),
        list("seen", Redistribution::Union),
    ];
    let pending = if kind == SnapshotKind::Savepoint { Vec::new() } else { vec![prepared(6), prepared(7)] };
    Manifest {
        kind,
        job_name: "word-count".to_owned(),
        job: JobId(1 << 100),
        lineage: Lineage(2 << 100),
        attempt: AttemptId(0),
        checkpoint: CheckpointId(7),
        max_parallelism: MAX,
        drained: true,
        ended: false,
        triggered_at: AT,
        operators: vec![
            operator(
                "count",
                "process",
                vec![state("by-hour", "map"), state("total", "value")],
                vec![keyed(0), keyed(1)],
            ),
            operator("out", "sink", Vec::new(), vec![subtask(0, none, Vec::new(), Vec::new(), pending)]),
            operator("source", "source", Vec::new(), vec![subtask(0, none, Vec::new(), lists, Vec::new())]),
        ],
    }
}

/// Twenty keyed operators of four hundred subtasks each, with two runs each: over a megabyte.
pub(crate) fn large() -> Vec<u8> {
    let mut large = manifest(SnapshotKind::Savepoint);
    let keyed = large.operators[0].clone();
    large.max_parallelism = MaxParallelism(1000);
    large.operators.remove(0);
    for number in 0..20 {
        let mut operator = keyed.clone();
        operator.uid = Uid::new(&format!("count-{number}")).unwrap();
        operator.parallelism = 400;
        let subtask = |index| {
            let groups = large.max_parallelism.range(SubtaskIndex(index), 400);
            let runs = (1..3).map(|run_number| {
                let path = format!("attempt-0/runs/count-{number}/{index}-{run_number}.run");
                Run { file: file(&path), ..run(index, run_number, groups) }
            });
            let subtask = operator.subtasks[0].clone();
            SubtaskSnapshot { subtask: SubtaskIndex(index), groups, runs: runs.collect(), ..subtask }
        };
        operator.subtasks = (0..400).map(subtask).collect();
        large.operators.push(operator);
    }
    large.operators.sort_by(|a, b| a.uid.cmp(&b.uid));
    let bytes = manifest::encode(&large).unwrap().to_vec();
    assert!(bytes.len() > 1 << 20, "{} bytes", bytes.len());
    bytes
}

/// A file around this body, such as no program of ours writes.
fn around(target: &Target, body: &impl Serialize) -> Vec<u8> {
    let mut bytes = vec![0; 24];
    Bincode::encode(body, &mut bytes).unwrap();
    bytes.extend([0; 16]);
    (target.repair)(&mut bytes);
    bytes
}

/// Elements of one byte that take a hundred and more in memory.
fn bombs() -> Vec<Seed> {
    let mut many_names = manifest(SnapshotKind::Savepoint);
    many_names.operators[0].subtasks[0].runs[0].without = vec![String::new(); 50_000];
    let mut many_subtasks = manifest(SnapshotKind::Savepoint);
    let mut small = many_subtasks.operators[1].subtasks[0].clone();
    (small.watermark, small.processing_time) = (Timestamp(0), Timestamp(0));
    many_subtasks.operators[1].subtasks = vec![small; 8_000];
    let mut many_elements = manifest(SnapshotKind::Savepoint);
    many_elements.operators[2].subtasks[0].lists[0].elements = (0..50_000).map(|_| [7_u8; 0]).collect();
    let (_, mut many_checkpoints) = records().pop().unwrap();
    many_checkpoints.standing.unconfirmed = vec![CheckpointId(1); 60_000];
    let mut long_path = manifest(SnapshotKind::Savepoint);
    long_path.operators[0].subtasks[0].runs[0].file.path = "\u{7f}".repeat(60_000);
    // A text that is said to be as long as a body may be.
    let mut announced = vec![0; 24];
    announced.extend([0, 0xfc, 0, 0, 0, 0x0f]);
    announced.extend([0; 16]);
    (MANIFEST.repair)(&mut announced);
    vec![
        (MANIFEST.name, "bomb-of-names", around(&MANIFEST, &many_names)),
        (MANIFEST.name, "bomb-of-subtasks", around(&MANIFEST, &many_subtasks)),
        (MANIFEST.name, "bomb-of-elements", around(&MANIFEST, &many_elements)),
        (MANIFEST.name, "bomb-of-a-path", around(&MANIFEST, &long_path)),
        (MANIFEST.name, "announced-text", announced),
        (RECORD.name, "bomb-of-checkpoints", around(&RECORD, &many_checkpoints)),
    ]
}

/// One file of each kind, and bombs.
pub(crate) fn seeds() -> Vec<Seed> {
    let mut seeds: Vec<Seed> = records()
        .into_iter()
        .map(|(name, record)| (RECORD.name, name, record.encode().unwrap().to_vec()))
        .collect();
    seeds.push((HINT.name, "hint", encode_hint(RecordNumber(123_456)).unwrap().to_vec()));
    for (name, kind) in [("checkpoint", SnapshotKind::Checkpoint), ("savepoint", SnapshotKind::Savepoint)] {
        seeds.push((MANIFEST.name, name, manifest::encode(&manifest(kind)).unwrap().to_vec()));
    }
    seeds.extend(bombs());
    seeds
}
