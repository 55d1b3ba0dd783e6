//! Snapshots of a harness: real run files and list states, kept in memory.

use std::collections::BTreeMap;

use checkpoint::manifest::ListPart;
use env::{Env, Payload, Store};
use statebackend::{
    KeyedState, Rewriting, RunCompression, plan_migration, restore as restore_runs, run_of, write_run,
};
use types::{
    AttemptId, CheckpointId, Error, ExpiryTimes, JobId, Result, Run, RunIdentity, SubtaskIndex, Timestamp,
    Uid,
};

use super::pipeline::{Pipeline, Vertices};
use crate::task::guard;

/// What a checkpoint of a harness holds.
#[derive(Clone, Debug, Default)]
pub struct HarnessSnapshot {
    checkpoint: CheckpointId,
    operators: BTreeMap<Uid, OperatorState>,
    /// The run files, by path.
    files: BTreeMap<String, Payload>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct OperatorState {
    /// Oldest first.
    runs: Vec<Run>,
    lists: Vec<ListPart>,
    watermark: Option<Timestamp>,
}

impl HarnessSnapshot {
    /// The number of the first checkpoint after it.
    pub(super) fn next_checkpoint(&self) -> CheckpointId {
        self.checkpoint.next()
    }
}

/// Takes checkpoint number `checkpoint`: only what changed since the one before is written, as in a job.
pub(super) fn take(
    pipeline: &mut Pipeline,
    vertices: &Vertices,
    checkpoint: CheckpointId,
) -> Result<HarnessSnapshot> {
    let mut snapshot = HarnessSnapshot { checkpoint, ..pipeline.base.clone() };
    for index in 0..vertices.all().len() {
        let Some(uid) = vertices.uid(index) else { continue };
        let watermark = pipeline.watermark(index);
        let operator = pipeline.operator(index);
        let state = snapshot.operators.entry(uid.clone()).or_default();
        state.lists = operator.lists()?;
        // The last one of all is not given back, as in a job.
        state.watermark = (watermark < Timestamp::MAX).then_some(watermark);
        let Some(keyed) = operator.keyed() else { continue };
        keyed.flip(checkpoint);
        while keyed.drain(usize::MAX)? > 0 {}
        while let Some((_, delta)) = keyed.take_sealed() {
            if delta.is_empty() {
                continue;
            }
            let written = write_run(delta, identity(uid, checkpoint), keyed.groups(), RunCompression::Zstd)?;
            let path = format!("{uid}-{checkpoint}.run");
            state.runs.push(run_of(&written, &path));
            snapshot.files.insert(path, written.payload);
        }
    }
    pipeline.base = snapshot.clone();
    Ok(snapshot)
}

fn identity(uid: &Uid, checkpoint: CheckpointId) -> RunIdentity {
    RunIdentity {
        job: JobId(0),
        attempt: AttemptId(1),
        operator: uid.clone(),
        subtask: SubtaskIndex(0),
        number: checkpoint.0,
    }
}

/// Gives freshly opened operators the state of a snapshot.
pub(super) async fn restore(
    snapshot: &HarnessSnapshot,
    pipeline: &mut Pipeline,
    vertices: &Vertices,
    env: &Env,
) -> Result<()> {
    let store = env.open_store(&format!("memory:harness-{}", snapshot.checkpoint))?;
    for (path, bytes) in &snapshot.files {
        store.put(path, bytes.clone()).await?;
    }
    let mut base = snapshot.clone();
    let mut restored: BTreeMap<usize, &Uid> = BTreeMap::new();
    let mut watermarks = vec![None; vertices.all().len()];
    for (uid, state) in &snapshot.operators {
        let claims = |index: &usize| {
            let vertex = &vertices.all()[*index];
            vertex.uid.as_ref() == Some(uid) || vertex.formerly.contains(uid)
        };
        let found = (0..vertices.all().len()).find(claims);
        let index = found.ok_or_else(|| {
            Error::incompatible(format!(
                "the snapshot holds state of operator {uid}, which the harness does not run"
            ))
        })?;
        if let Some(other) = restored.insert(index, uid) {
            return Err(Error::incompatible(format!(
                "the snapshot holds state of operator {other} and of operator {uid}, and one operator claims both"
            )));
        }
        let in_place = |error: Error| error.context(format!("operator {uid}"));
        let operator = pipeline.operator(index);
        operator.restore_lists(state.lists.clone()).map_err(in_place)?;
        let mut state = state.clone();
        if let Some(keyed) = operator.keyed() {
            let written = migrate(&mut state, uid, snapshot.checkpoint, keyed, env, &*store).await;
            base.files.extend(written.map_err(in_place)?);
            restore_runs(env, &*store, &state.runs, keyed).await.map_err(in_place)?;
        }
        watermarks[index] = state.watermark;
        // From here on under the operator's present uid.
        base.operators.remove(uid);
        base.operators.extend(vertices.uid(index).map(|uid| (uid.clone(), state)));
    }
    pipeline.restore_watermarks(watermarks);
    pipeline.base = base;
    Ok(())
}

/// Writes states anew that are stored as older types; the file with that, if there is one.
async fn migrate(
    state: &mut OperatorState,
    uid: &Uid,
    checkpoint: CheckpointId,
    keyed: &KeyedState,
    env: &Env,
    store: &dyn Store,
) -> Result<Option<(String, Payload)>> {
    let Some(plan) = plan_migration(store, &state.runs, keyed.declared(), keyed.groups()).await? else {
        return Ok(None);
    };
    let path = format!("{uid}-{checkpoint}-migrated.run");
    // It is there if the snapshot was restored before.
    store.delete(&path).await?;
    let clocks = state.lists.iter().find(|part| part.is_expiry_clocks()).map(ListPart::expiry_clocks);
    let how = Rewriting {
        clocks: &clocks.transpose()?.unwrap_or_default(),
        now: ExpiryTimes { event: state.watermark.unwrap_or(Timestamp::MIN), processing: env.wall() },
        identity: RunIdentity { number: 0, ..identity(uid, checkpoint) },
        path: &path,
        compression: RunCompression::Zstd,
        call: |call| guard::catch(call),
    };
    state.runs = plan.rewrite(env, store, how).await?;
    match store.get(&path).await? {
        Some(bytes) => Ok(Some((path, vec![bytes]))),
        None => Ok(None),
    }
}
