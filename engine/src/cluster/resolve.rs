//! What the sinks hold against what the history says: decided before anything is started, so that a refusal leaves
//! everything as it was. Pure.

use std::collections::BTreeMap;

use checkpoint::history::{
    From, Standing,
    fallback::{self, SinkProof},
};
use types::{CheckpointId, Error, Lineage, Result, Uid};

use crate::api::sink::Marker;

/// What a start expects to find at its sinks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    /// The line of history that goes on, and the newest checkpoint that the history completed in it; `None` for a
    /// start that begins a new one.
    pub(crate) continued: Option<(Lineage, CheckpointId)>,
    /// Checkpoints that the history has revoked, and what a user can do where a sink has committed output of one.
    pub(crate) revoked: BTreeMap<CheckpointId, String>,
    /// Lines of history that the user accepts beside it.
    pub(crate) accept_foreign: bool,
}

impl Expected {
    /// For a start from `from` on top of `standing`, whose checkpoints are in `directory`.
    pub(crate) fn new(
        standing: Option<&Standing>,
        from: &From,
        accept_foreign: bool,
        directory: &str,
    ) -> Self {
        let goes_on = standing.filter(|it| from.continues(standing) && !it.starts_over());
        let continued = goes_on.map(|standing| {
            let lineage = standing.attempt.lineage;
            let newest = standing.completed.iter().rfind(|it| it.lineage == lineage).map(|it| it.checkpoint);
            (lineage, newest.unwrap_or_default())
        });
        let choices = |standing: &Standing, it: &CheckpointId| {
            (*it, fallback::choices_if_committed(standing, directory, *it))
        };
        let revoked = standing.into_iter().flat_map(|all| all.revoked.iter().map(|it| choices(all, it)));
        let revoked = revoked.collect();
        // What was accepted once holds for as long as the line of history goes on.
        let accepted = goes_on.is_some_and(|it| it.attempt.origin.accepts_foreign_output);
        Self { continued, revoked, accept_foreign: accept_foreign || accepted }
    }

    /// Compares what a sink holds.
    ///
    /// # Errors
    /// `Conflict` with the choices: the checkpoint directory is older than the output, something revoked is
    /// committed, or the output is another line's.
    pub(crate) fn check(&self, uid: &Uid, held: &[Marker]) -> Result<()> {
        for marker in held {
            match self.continued {
                Some((lineage, newest)) if marker.lineage == lineage => {
                    // A damaged checkpoint also carries what was prepared for the failed ones before it.
                    let revoked = self.revoked.range(marker.checkpoint..).next();
                    if let Some((&checkpoint, choices)) = revoked
                        && (checkpoint == marker.checkpoint || marker.checkpoint > newest)
                    {
                        return Err(revoked_too_late(uid, checkpoint, choices));
                    }
                    if marker.checkpoint > newest {
                        return Err(Error::conflict(format!(
                            "sink {uid}: {} was committed with checkpoint {}, but the job history knows checkpoints up \
                             to {newest} only: the checkpoint directory is older than the output; give the newer \
                             checkpoint directory, or another output",
                            marker.place, marker.checkpoint
                        )));
                    }
                }
                _ if self.accept_foreign => {}
                _ => {
                    return Err(Error::conflict(format!(
                        "sink {uid}: {} belongs to another line of history ({}): continue that line with its \
                         own checkpoint directory and without --from, give another output, or add \
                         --accept-foreign-output to keep it beside the new one, which may hold the same records",
                        marker.place, marker.lineage
                    )));
                }
            }
        }
        Ok(())
    }

    /// A sink says itself that something of the checkpoint revoked last is committed.
    pub(crate) fn too_late(&self, uid: &Uid) -> Error {
        match self.revoked.last_key_value() {
            Some((&checkpoint, choices)) => revoked_too_late(uid, checkpoint, choices),
            None => Error::internal(format!(
                "sink {uid} was asked to revoke, and the history has revoked nothing"
            )),
        }
    }
}

/// What a sink proves about a damaged checkpoint: `visible` if it holds a marker of it, `elsewhere` if it is not asked
/// where it wrote, `unconfirmed` if the history does not say that it was committed, `wrote` if anything was prepared for
/// it, where the manifest still tells.
pub(crate) fn proof(visible: bool, elsewhere: bool, unconfirmed: bool, wrote: Option<bool>) -> SinkProof {
    match (visible, unconfirmed, wrote) {
        (true, ..) | (false, false, Some(true)) => SinkProof::Committed,
        (false, _, Some(false)) => SinkProof::NothingCommitted,
        // Whatever is committed leaves a marker, there.
        (false, true, _) if !elsewhere => SinkProof::NothingCommitted,
        // Its output may have been taken away since, or be where it was.
        (false, ..) => SinkProof::Unknown,
    }
}

/// A process that had the right to commit `checkpoint` before it was revoked did so at the last moment: after the sinks
/// were asked, before they were told. Nobody can say any more what else of it is committed.
fn revoked_too_late(uid: &Uid, checkpoint: CheckpointId, choices: &str) -> Error {
    Error::conflict(format!(
        "sink {uid}: checkpoint {checkpoint} was revoked because it is damaged, and another process has committed output \
         of it at the same moment: {choices}"
    ))
}

#[cfg(test)]
mod tests {
    use types::ErrorKind;

    use super::*;

    fn marker(lineage: u128, checkpoint: u64) -> Marker {
        Marker {
            lineage: Lineage(lineage),
            checkpoint: CheckpointId(checkpoint),
            place: "out/part-1".to_owned(),
        }
    }

    #[test]
    fn a_sink_proves_that_nothing_was_committed_by_what_it_holds_and_what_the_history_says() {
        for wrote in [None, Some(false), Some(true)] {
            for (elsewhere, unconfirmed) in [(false, false), (false, true), (true, false), (true, true)] {
                assert_eq!(proof(true, elsewhere, unconfirmed, wrote), SinkProof::Committed);
            }
            assert_eq!(proof(false, false, true, wrote), SinkProof::NothingCommitted);
        }
        for elsewhere in [false, true] {
            for unconfirmed in [false, true] {
                let nothing = proof(false, elsewhere, unconfirmed, Some(false));
                assert_eq!(nothing, SinkProof::NothingCommitted);
            }
            // Confirmed: what was written was committed, even where nothing of it can be seen any more.
            assert_eq!(proof(false, elsewhere, false, Some(true)), SinkProof::Committed);
            assert_eq!(proof(false, elsewhere, false, None), SinkProof::Unknown);
        }
        // What it committed is where it was then.
        assert_eq!(proof(false, true, true, Some(true)), SinkProof::Unknown);
        assert_eq!(proof(false, true, true, None), SinkProof::Unknown);
    }

    #[test]
    fn only_what_the_history_completed_in_its_own_line_may_be_there() -> Result<()> {
        let uid = Uid::new("out")?;
        let continued = Expected {
            continued: Some((Lineage(7), CheckpointId(3))),
            revoked: BTreeMap::from([(CheckpointId(5), "do this".to_owned())]),
            accept_foreign: false,
        };
        assert!(continued.check(&uid, &[]).is_ok());
        assert!(continued.check(&uid, &[marker(7, 1), marker(7, 3)]).is_ok());
        let ahead = continued.check(&uid, &[marker(7, 6)]).expect_err("it is ahead");
        assert_eq!(ahead.kind(), ErrorKind::Conflict);
        assert!(ahead.message().contains("older than the output"));
        // Prepared for checkpoint 4, which failed, and carried in 5.
        for marked in [4, 5] {
            let revoked = continued.check(&uid, &[marker(7, marked)]).expect_err("it is revoked");
            assert_eq!(revoked.kind(), ErrorKind::Conflict);
            assert!(revoked.message().contains("checkpoint 5 was revoked"), "{marked}: {revoked}");
            assert!(revoked.message().ends_with(": do this"), "{marked}: {revoked}");
        }
        let told = continued.check(&uid, &[marker(7, 5)]).expect_err("it is revoked");
        assert_eq!(continued.too_late(&uid).to_string(), told.to_string());
        let foreign = continued.check(&uid, &[marker(8, 1)]).expect_err("it is foreign");
        assert!(foreign.message().contains("another line of history"));
        let accepting = Expected { accept_foreign: true, ..continued.clone() };
        assert!(accepting.check(&uid, &[marker(8, 1)]).is_ok());
        assert!(accepting.check(&uid, &[marker(7, 4)]).is_err());
        let fresh = Expected { continued: None, revoked: BTreeMap::new(), accept_foreign: false };
        assert!(fresh.check(&uid, &[marker(7, 1)]).is_err());
        Ok(())
    }
}
