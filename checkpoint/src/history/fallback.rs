//! Falling back past a damaged newest checkpoint: the one exception to "what the history completed is committed". It
//! breaks exactly-once as soon as a sink committed anything of that checkpoint, since a replay cuts the stream at other
//! places; so it happens by itself only when every sink proves that nothing was.

use std::collections::BTreeMap;

use types::{CheckpointId, Uid};

use super::{
    standing::{Restores, Standing},
    start,
};

/// What a sink can say about a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SinkProof {
    /// Nothing of it was committed, and nothing can be once it is revoked.
    NothingCommitted,
    /// Some or all of it was committed.
    Committed,
    /// The sink cannot tell.
    Unknown,
}

/// Whether to fall back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// Stop, for this reason.
    Refuse(String),
    /// Revoke the damaged checkpoint in the history, then at each sink, and restore what stood before.
    RevokeThenRestore {
        /// The damaged checkpoint.
        revoke: CheckpointId,
        /// What is restored instead.
        restore: Restores,
    },
}

/// Decides what to do about checkpoint `damaged`, given what each sink proves.
#[must_use]
pub fn fallback(standing: &Standing, damaged: CheckpointId, sinks: &BTreeMap<Uid, SinkProof>) -> Fallback {
    let newest = standing.completed.last().map(|newest| newest.checkpoint);
    if newest != Some(damaged) {
        return Fallback::Refuse(format!("checkpoint {damaged} is not the newest one"));
    }
    let unproven = sinks.iter().find(|&(_, &proof)| proof != SinkProof::NothingCommitted);
    if let Some((sink, proof)) = unproven {
        let why = match proof {
            SinkProof::Committed => "has committed output of it",
            _ => "cannot prove that it committed nothing of it",
        };
        return Fallback::Refuse(format!("sink {sink} {why}"));
    }
    match instead(standing, damaged) {
        Some(restore) => Fallback::RevokeThenRestore { revoke: damaged, restore },
        None => Fallback::Refuse(match &standing.attempt.restores {
            Restores::Own(own) if !standing.retains(own) => {
                format!("checkpoint {}, which it went on from, is not retained any more", own.checkpoint)
            }
            _ => format!("nothing before checkpoint {damaged} is retained"),
        }),
    }
}

/// What would be restored instead of checkpoint `damaged`, if anything before it is retained.
#[must_use]
pub fn instead(standing: &Standing, damaged: CheckpointId) -> Option<Restores> {
    start::before(standing, damaged)
}

/// What is known of the checkpoints that a user could start from instead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Advice {
    /// The newest one before the damaged one that is whole.
    pub whole: Option<CheckpointId>,
    /// Whether the line of history began from that one: it would go on if nothing else is said.
    pub began_from_it: bool,
    /// Whether there are others, all of them damaged as well.
    pub has_damaged: bool,
    /// Whether the list of what is to be committed first is damaged: no start can do that.
    pub lost_pending: bool,
}

/// The choices of a user whose checkpoint in `directory` cannot be restored, to end an error message with. Each is whole:
/// it names every flag that it needs.
#[must_use]
pub fn choices(directory: &str, advice: &Advice) -> String {
    let abandon = if advice.lost_pending { " --abandon-pending" } else { "" };
    let again = again(advice.began_from_it);
    let older = match advice {
        Advice { whole: Some(whole), .. } => format!(
            " start from checkpoint {whole}, the newest before it that is whole, with --from {directory}@{whole}{again} \
             --accept-foreign-output{abandon} (what was committed since then comes twice), or"
        ),
        Advice { has_damaged: true, .. } => {
            format!(" no checkpoint before it is whole (tidegate verify {directory} names the files), so")
        }
        _ => String::new(),
    };
    format!("put the file back;{older} start fresh {ELSEWHERE}")
}

/// The choices where a sink holds output of checkpoint `revoked`, which nobody can go on from, to end an error message
/// with.
#[must_use]
pub fn choices_if_committed(standing: &Standing, directory: &str, revoked: CheckpointId) -> String {
    let older = from_before(standing, directory, revoked)
        .map(|from| format!("{from} --accept-foreign-output (what was committed then comes twice), or "));
    format!("{}start fresh {ELSEWHERE}", older.unwrap_or_default())
}

/// Where nothing stands in the way of a start, nor is given up by it.
const ELSEWHERE: &str = "with another checkpoint directory and another output";

/// What makes a start begin a line of history from a snapshot that the present one `began_from`.
fn again(began_from: bool) -> &'static str {
    if began_from { " --begin-again" } else { "" }
}

fn from_before(standing: &Standing, directory: &str, checkpoint: CheckpointId) -> Option<String> {
    let older = standing.completed.iter().rfind(|held| held.checkpoint < checkpoint)?;
    let again = again(standing.began_from(older.manifest.digest));
    Some(format!("start from the checkpoint before it with --from {directory}@{}{again}", older.checkpoint))
}
