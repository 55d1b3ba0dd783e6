//! Where sources read and sinks write, against what a snapshot remembers: positions mean nothing in other files, and
//! output must not end in one directory and go on in the next unless the user says so. Decided before the start record
//! is; applied when the state is dealt out. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use checkpoint::manifest::{Manifest, OperatorSnapshot, PreparedTransaction};
use types::{Error, Result, Uid};

use crate::{
    api::erased::AnySource,
    cluster::enumerator::Enumerator,
    graph::{
        logical::{Vertex, VertexKind},
        physical::Plan,
    },
    operators::source::{SPLITS, decode_splits, encode_splits},
};

/// A source or sink that is not where the snapshot remembers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Elsewhere {
    pub(crate) uid: Uid,
    pub(crate) is_sink: bool,
    /// The name that it has in the snapshot.
    pub(crate) stored_as: Uid,
    /// Its transactions in the snapshot.
    pub(crate) prepared: Vec<PreparedTransaction>,
    stored: String,
    given: String,
}

/// What in `manifest` has another place than `places` gives, but for those that may, `allowed`.
///
/// # Errors
/// `Corrupt` if a place cannot be read.
pub(crate) fn elsewhere(
    plan: &Plan,
    manifest: &Manifest,
    places: &BTreeMap<Uid, String>,
    allowed: &BTreeSet<Uid>,
) -> Result<Vec<Elsewhere>> {
    let mut found = Vec::new();
    for operator in &manifest.operators {
        let Some((vertex, uid)) = vertex(plan, operator) else { continue };
        if let (Some(given), Some(stored)) = (places.get(uid), operator.place()?)
            && *given != stored
            && !allowed.contains(uid)
        {
            found.push(Elsewhere {
                uid: uid.clone(),
                is_sink: matches!(vertex.kind, VertexKind::Sink(_)),
                stored_as: operator.uid.clone(),
                prepared: operator.subtasks.iter().flat_map(|it| it.prepared.iter().cloned()).collect(),
                stored,
                given: given.clone(),
            });
        }
    }
    Ok(found)
}

/// Refuses output and checkpoints that the next start would read as input, as a source that `reads` what is there says, and
/// output among the checkpoints, in the directory `checkpoints`.
///
/// # Errors
/// `InvalidJob` naming both places.
pub(crate) fn refuse_overlap(
    places: &BTreeMap<Uid, String>,
    is_sink: impl Fn(&Uid) -> bool,
    reads: impl Fn(&Uid, &Path) -> bool,
    checkpoints: Option<&Path>,
) -> Result<()> {
    // What is no path of a file or directory has no other below it.
    let places = || places.iter().filter(|(_, place)| place.starts_with('/'));
    let sinks = || places().filter(|(uid, _)| is_sink(uid));
    let is_among = |place: &str| checkpoints.is_some_and(|dir| Path::new(place).starts_with(dir));
    if let Some((uid, place)) = sinks().find(|(_, place)| is_among(place)) {
        return Err(Error::invalid_job(format!(
            "sink {uid} writes to {place}, where the checkpoints go: give it another directory, or another --checkpoints"
        )));
    }
    let outputs =
        sinks().map(|(uid, place)| (format!("sink {uid} writes to {place}"), Path::new(place.as_str())));
    let own = checkpoints.map(|dir| (format!("checkpoints go to {}", dir.display()), dir));
    for (what, written) in outputs.chain(own) {
        let mut sources = places().filter(|(uid, _)| !is_sink(uid));
        if let Some((uid, input)) = sources.find(|(uid, _)| reads(uid, written)) {
            return Err(Error::invalid_job(format!(
                "{what}, and source {uid} reads all that is in {input}, that too: give a directory outside of it"
            )));
        }
    }
    Ok(())
}

/// Refuses what is elsewhere; `snapshot` says in which snapshot it is not.
///
/// # Errors
/// `IncompatibleState` if anything is.
pub(crate) fn refuse(elsewhere: &[Elsewhere], snapshot: &str) -> Result<()> {
    refuse_with(elsewhere, snapshot, || {
        format!(
            "give the former again; if all that was there has moved, or output shall go on there, add {}; a new run needs \
             another checkpoint directory and another output",
            allow(elsewhere)
        )
    })
}

/// Refuses what is elsewhere for a job that has finished: there is nothing left to go on with.
///
/// # Errors
/// `IncompatibleState` if anything is.
pub(crate) fn refuse_finished(elsewhere: &[Elsewhere], snapshot: &str) -> Result<()> {
    refuse_with(elsewhere, snapshot, || {
        "that job has finished: a new run needs another checkpoint directory and another output".to_owned()
    })
}

/// Refuses a start that would begin a line of history in `directory` beside one that has not finished, whose `checkpoints`
/// would go.
///
/// # Errors
/// `IncompatibleState` if anything is elsewhere.
pub(crate) fn refuse_unfinished(
    elsewhere: &[Elsewhere],
    snapshot: &str,
    directory: &str,
    checkpoints: &str,
) -> Result<()> {
    refuse_with(elsewhere, snapshot, || {
        format!(
            "that job has not finished, and the line of history that would begin beside it in {directory} would give up \
             {checkpoints}, from which alone it can go on: give another checkpoint directory and another output, or go on \
             with it, with the former places and without --from; to give it up, add {}",
            allow(elsewhere)
        )
    })
}

/// Refuses a start that must commit what a sink left pending elsewhere; one that `continues` cannot give that up.
///
/// # Errors
/// `IncompatibleState` if anything is.
pub(crate) fn refuse_pending(elsewhere: &[Elsewhere], snapshot: &str, continues: bool) -> Result<()> {
    refuse_with(elsewhere, snapshot, || {
        let choices = if continues {
            format!(
                "go on once with the former output, or move all that is there, hidden files too, and give {}; a new run \
                 needs another checkpoint directory and another output",
                allow(elsewhere)
            )
        } else {
            format!(
                "go on from {snapshot} once, with the former output, or give that up with --abandon-pending"
            )
        };
        format!("some of it may not be committed yet: {choices}")
    })
}

fn allow(elsewhere: &[Elsewhere]) -> String {
    elsewhere.iter().map(|it| format!("--allow-moved {}", it.uid)).collect::<Vec<_>>().join(" ")
}

fn refuse_with(elsewhere: &[Elsewhere], snapshot: &str, advice: impl FnOnce() -> String) -> Result<()> {
    if elsewhere.is_empty() {
        return Ok(());
    }
    let text = |it: &Elsewhere| {
        let Elsewhere { uid, is_sink, stored, given, .. } = it;
        let did = if *is_sink { "sink" } else { "source" };
        let verb = if *is_sink { "wrote to" } else { "read" };
        format!("{did} {uid} {verb} {stored} up to {snapshot}, and is given {given}")
    };
    let all: Vec<_> = elsewhere.iter().map(text).collect();
    Err(Error::incompatible(format!("{}: {}", all.join("; "), advice())))
}

/// `manifest` with the splits of every source as they are where it reads now.
///
/// # Errors
/// `Corrupt` if splits cannot be read, and what the source says.
pub(crate) fn apply(plan: &Plan, manifest: &mut Manifest, places: &BTreeMap<Uid, String>) -> Result<()> {
    for operator in &mut manifest.operators {
        let Some((vertex, uid)) = vertex(plan, operator) else { continue };
        let (Some(given), VertexKind::Source(source)) = (places.get(uid), &vertex.kind) else { continue };
        if let Some(stored) = operator.place()?
            && stored != *given
        {
            let moved = follow(operator, &**source, &stored, given);
            moved.map_err(|error| error.context(format!("source {uid}")))?;
        }
    }
    Ok(())
}

fn follow(operator: &mut OperatorSnapshot, source: &dyn AnySource, from: &str, to: &str) -> Result<()> {
    if let Some(enumerator) = &mut operator.enumerator {
        let splits = Enumerator::restore(enumerator)?;
        let moved = splits.iter().map(|split| source.moved(split, from, to)).collect::<Result<Vec<_>>>()?;
        *enumerator = Enumerator::encode(&moved)?;
    }
    let lists = operator.subtasks.iter_mut().flat_map(|subtask| &mut subtask.lists);
    for part in lists.filter(|part| part.name == SPLITS) {
        let splits = decode_splits(part)?;
        let moved = splits.iter().map(|split| source.moved(split, from, to)).collect::<Result<Vec<_>>>()?;
        part.elements = encode_splits(&moved)?;
    }
    Ok(())
}

/// The operator of the job that goes on with a stored one, and its present name.
fn vertex<'a>(plan: &'a Plan, operator: &OperatorSnapshot) -> Option<(&'a Vertex, &'a Uid)> {
    let vertex = plan.graph.vertices.iter().find(|vertex| {
        vertex.uid.as_ref() == Some(&operator.uid) || vertex.formerly.contains(&operator.uid)
    })?;
    Some((vertex, vertex.uid.as_ref()?))
}
