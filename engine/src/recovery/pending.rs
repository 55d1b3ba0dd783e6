//! What completed checkpoints have pending at sinks, and a start would not commit: refused before the start record is, or
//! given up in so many words. Pure.

use std::collections::BTreeSet;

use checkpoint::{
    history::{Restores, Standing, Unconfirmed},
    storage::paths::SAVEPOINT_MANIFEST,
};
use types::{Error, ErrorKind, Result, Uid};

/// Refuses a start from a copy in `directory`: nobody would commit there what it leaves pending, nor here.
///
/// # Errors
/// `Conflict` if anything may be pending.
pub(crate) fn refuse_left_behind(unconfirmed: &[Unconfirmed], directory: &str) -> Result<()> {
    let Some(newest) = unconfirmed.iter().rfind(|it| !it.is_empty()) else { return Ok(()) };
    Err(Error::conflict(format!(
        "checkpoint {} in {directory} has output that its sinks have not committed yet ({}), and a start from there does \
         not commit it: go on with the job in {directory} until they have, or give that output up with --abandon-pending",
        newest.checkpoint,
        Unconfirmed::total(unconfirmed)
    )))
}

/// Refuses a start that begins a new line of history and would commit what an older one left pending beside it: the
/// records would be there twice.
///
/// # Errors
/// `Conflict` if anything is pending.
pub(crate) fn refuse_beside(unconfirmed: &[Unconfirmed]) -> Result<()> {
    // A manifest that cannot be read is refused as such.
    let readable = |it: &&Unconfirmed| it.manifest.is_some() && !it.is_empty();
    let Some(newest) = unconfirmed.iter().rfind(readable) else { return Ok(()) };
    Err(Error::conflict(format!(
        "checkpoint {} of another line of history ({}) has output that its sinks have not committed yet ({}), and this \
         start would commit it beside the new line's: go on with that line (--from latest), give that output up with \
         --abandon-pending, or add --accept-foreign-output to keep it beside the new one",
        newest.checkpoint,
        newest.lineage,
        Unconfirmed::total(unconfirmed)
    )))
}

/// Refuses what is pending at a sink that is none of the `sinks`; `give_up` says how a user gives all of it up.
///
/// # Errors
/// `IncompatibleState` if anything is.
pub(crate) fn refuse_without_sink(
    unconfirmed: &[Unconfirmed],
    sinks: &BTreeSet<&Uid>,
    give_up: impl Fn() -> String,
) -> Result<()> {
    for it in unconfirmed {
        let Some(prepared) = it.prepared() else { continue };
        let Some(sink) = prepared.keys().find(|sink| !sinks.contains(*sink)) else { continue };
        return Err(Error::incompatible(format!(
            "checkpoint {} has output of sink {sink} that is not committed yet, and the job has no exactly-once sink of \
             that name: start once with it, or give up all that may not be committed yet ({}) with {}",
            it.checkpoint,
            Unconfirmed::total(unconfirmed),
            give_up()
        )));
    }
    Ok(())
}

/// The flags of a start that gives up what is pending and restores the same as one on top of `standing`, whose checkpoints
/// are in `directory`. A continuation commits all of it.
pub(crate) fn giving_up(standing: &Standing, continues: bool, directory: &str) -> String {
    if !continues {
        return "--abandon-pending".to_owned();
    }
    let from = match standing.restore_point() {
        Restores::Empty => "none".to_owned(),
        Restores::Own(own) => format!("{directory}@{}", own.checkpoint),
        Restores::Foreign(foreign) if foreign.manifest.path == SAVEPOINT_MANIFEST => foreign.url,
        Restores::Foreign(foreign) => format!("{}@{}", foreign.url, foreign.checkpoint),
    };
    let began = standing.restore_point().manifest().is_some_and(|it| standing.began_from(it.digest));
    let again = if began { " --begin-again" } else { "" };
    format!("--from {from}{again} --abandon-pending --accept-foreign-output")
}

/// The error of a start that found lost what it was to commit, with the `flags` of one that gives all of it up.
pub(crate) fn or_give_up(error: Error, flags: &str) -> Error {
    match error.kind() {
        ErrorKind::Lost => {
            error.with_advice(format_args!("if that cannot be, give up what is pending with {flags}"))
        }
        _ => error,
    }
}

/// The lines that say what a start gives up; `place` names the directory if it is not the job's own.
pub(crate) fn given_up(unconfirmed: &[Unconfirmed], place: &str) -> Vec<String> {
    let left = unconfirmed.iter().filter(|it| !it.is_empty());
    left.map(|it| {
        format!(
            "checkpoint {}{place}: --abandon-pending gives up {}, unless already committed",
            it.checkpoint,
            Unconfirmed::total(std::slice::from_ref(it))
        )
    })
    .collect()
}
