//! What a directory of snapshots holds, as text: every record, every manifest, every entry that lives, and the digests.

use std::{fmt::Write, sync::Arc};

use checkpoint::{
    history::Records,
    manifest::{Manifest, OperatorSnapshot, PreparedTransaction, SubtaskSnapshot},
    snapshots,
};
use env::{Env, Store};
use serde::Serialize;
use statebackend::{LiveEntry, RunSet, StateKind, StateSummary, scan, summarize, verify_run};
use types::{ExpiryClocks, RecordNumber, Shape, ShapedValue};

/// The text for a checkpoint directory or a savepoint.
pub(crate) async fn dump(env: &Env, store: Arc<dyn Store>) -> String {
    let mut text = String::new();
    let report = snapshots::verify(env, store.clone(), &mut |_| {}).await.unwrap();
    assert!(report.is_whole(), "{:?}", report.problems);
    let records = Records::new(env, store.clone());
    for number in 0..report.records as u64 {
        let record = records.read(RecordNumber(number)).await.unwrap().unwrap();
        writeln!(text, "record {number}: {}", json(&record)).unwrap();
    }
    for (path, manifest) in &report.manifests {
        writeln!(text, "\nmanifest {path}").unwrap();
        dump_manifest(env, &*store, manifest, &mut text).await;
    }
    text
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap()
}

async fn dump_manifest(env: &Env, store: &dyn Store, manifest: &Manifest, text: &mut String) {
    let head = Manifest { operators: Vec::new(), ..manifest.clone() };
    writeln!(text, "{}", json(&head)).unwrap();
    for operator in &manifest.operators {
        let OperatorSnapshot { uid, kind, parallelism, key_shape, states, subtasks, enumerator } = operator;
        writeln!(text, "operator {uid}: {kind}, {parallelism} subtasks, keys {}", shape(key_shape)).unwrap();
        writeln!(text, "  place {:?}, enumerator {enumerator:?}", operator.place().unwrap()).unwrap();
        for state in states {
            let (shape, map_key) = (shape(&state.shape), shape(&state.map_key_shape));
            writeln!(text, "  {} {}: {}, {shape}, {map_key}", state.kind, state.name, state.codec).unwrap();
        }
        let mut summary = StateSummary::default();
        for subtask in subtasks {
            let clocks = &subtask.expiry_clocks().unwrap();
            dump_subtask(env, store, subtask, clocks, text).await;
            summary.add(&summarize(env, store, RunSet::new(&subtask.runs, clocks)).await.unwrap());
        }
        for (name, count) in &summary.states {
            writeln!(text, "  all of {name}: {count:?}").unwrap();
        }
        writeln!(text, "  digest {}", summary.digest()).unwrap();
    }
}

async fn dump_subtask(
    env: &Env,
    store: &dyn Store,
    subtask: &SubtaskSnapshot,
    clocks: &ExpiryClocks,
    text: &mut String,
) {
    let SubtaskSnapshot { subtask: index, groups, runs, lists, prepared, watermark, processing_time } =
        subtask;
    writeln!(text, "  subtask {index}: key groups {groups}, at {} and {}", watermark.0, processing_time.0)
        .unwrap();
    for list in lists {
        let elements: Vec<_> = list.elements.iter().map(|element| value(&list.shape, element)).collect();
        writeln!(text, "    {:?} list {}: {}", list.redistribution, list.name, elements.join(", ")).unwrap();
    }
    for transaction in prepared {
        let head = PreparedTransaction { payload: Vec::new(), ..transaction.clone() };
        writeln!(text, "    prepared {}, payload {}", json(&head), hex(&transaction.payload)).unwrap();
    }
    for run in runs {
        writeln!(text, "    run {}", json(run)).unwrap();
        verify_run(env, store, run, true).await.unwrap();
    }
    let visit = |live: LiveEntry<'_>| {
        let LiveEntry { state, group, entry } = live;
        let sub = match (&state.map_key, state.kind) {
            (Some(shape), _) => ShapedValue::decode_key(shape, entry.sub).unwrap().to_string(),
            (None, _) => hex(entry.sub),
        };
        // A list is shown as its chunk is: lengths and elements.
        let value = match state.kind {
            StateKind::List => entry.value.escape_ascii().to_string(),
            StateKind::Timers => String::new(),
            _ => {
                // A deadline stands before it where it has one.
                let value = state.without_deadline(entry.value).unwrap();
                let deadline = &entry.value[..entry.value.len() - value.len()];
                let value = ShapedValue::decode(&state.shape, &state.codec, value).unwrap().to_string();
                if deadline.is_empty() { value } else { format!("{} {value}", hex(deadline)) }
            }
        };
        let key = ShapedValue::decode_key(&Shape::Str, entry.key).unwrap();
        writeln!(text, "    {} {group} {key} [{sub}] {value}", state.name).unwrap();
        Ok(())
    };
    scan(env, store, RunSet::new(runs, clocks), visit).await.unwrap();
}

fn shape(bytes: &[u8]) -> String {
    if bytes.is_empty() { "none".to_owned() } else { Shape::from_bytes(bytes).unwrap().to_string() }
}

fn value(shape: &[u8], bytes: &[u8]) -> String {
    let shape = Shape::from_bytes(shape).unwrap();
    ShapedValue::decode(&shape, "bincode2", bytes).unwrap().to_string()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
