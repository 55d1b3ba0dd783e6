//! Falling back past a damaged newest checkpoint, the one exception to "what the history completed is committed". It
//! happens by itself only when every sink proves that nothing of that checkpoint was committed; everything is examined
//! before anything is changed. The revocation itself is a record of the next start; then the sinks are told (`launch`).

use std::{collections::BTreeMap, sync::Arc};

use checkpoint::{
    history::{
        self, CompletedCheckpoint, EndKind, From, Restores, Standing,
        fallback::{self, Fallback},
    },
    manifest::{self, Manifest, PreparedTransaction},
    snapshots,
};
use types::{CheckpointId, Error, ErrorKind, Result, Uid};

use super::{job_manager::JobManager, launch::nobody, resolve::proof};
use crate::api::sink::Marker;

/// A checkpoint that the next start revokes.
pub(super) struct Revocation {
    pub(super) checkpoint: CheckpointId,
    /// What its manifest says that sinks have prepared for it; nothing if it cannot be read: sinks then throw away all
    /// that is not committed.
    pub(super) prepared: BTreeMap<Uid, Vec<PreparedTransaction>>,
    /// One line for people.
    pub(super) summary: String,
}

/// What was found of a checkpoint.
struct Examined {
    manifest: Option<Manifest>,
    /// Which file is not as it was written, and how.
    damage: Option<String>,
}

impl JobManager {
    /// What a continuation must revoke first, if the checkpoint that it would restore is damaged. Its manifest is always
    /// read; its files only if `suspicious`, or if their damage would be found too late: when the sinks have committed.
    ///
    /// # Errors
    /// `Corrupt` naming the file and the choices if the job does not fall back by itself.
    pub(super) async fn revocation(
        &mut self,
        automatic: bool,
        suspicious: bool,
    ) -> Result<Option<Revocation>> {
        if !automatic && !matches!(self.start.from, From::Auto | From::Latest) {
            return Ok(None);
        }
        let Some(record) = history::open(&self.env, Arc::clone(&self.store)).await? else { return Ok(None) };
        let standing = &record.standing;
        if standing.end.as_ref().is_some_and(|end| end.kind == EndKind::Finished) {
            return Ok(None);
        }
        let Restores::Own(newest) = standing.restore_point() else { return Ok(None) };
        let unconfirmed = standing.unconfirmed.contains(&newest.checkpoint);
        let Examined { manifest, damage } = self.examine(&newest, suspicious || unconfirmed).await?;
        let Some(damage) = damage else { return Ok(None) };
        let directory = self.store.url().to_owned();
        let refused = |why: String| {
            let (checkpoint, choices) =
                (newest.checkpoint, fallback::choices(standing, &directory, newest.checkpoint));
            Error::corrupt(format!(
                "checkpoint {checkpoint} cannot be used: {damage}; the job does not fall back by itself, since {why}; \
                 {choices}"
            ))
        };
        let proofs = self.proofs(standing, &newest, manifest.as_ref()).await?;
        let (revoke, restore) = match fallback::fallback(standing, newest.checkpoint, &proofs) {
            Fallback::Refuse(why) => return Err(refused(why)),
            Fallback::RevokeThenRestore { revoke, restore } => (revoke, restore),
        };
        let instead = match &restore {
            Restores::Own(older) => {
                if let Some(worse) = self.examine(older, true).await?.damage {
                    return Err(refused(format!(
                        "checkpoint {} is damaged as well: {worse}",
                        older.checkpoint
                    )));
                }
                format!("checkpoint {}", older.checkpoint)
            }
            Restores::Foreign(foreign) => format!("the snapshot in {}", foreign.url),
            Restores::Empty => "the beginning".to_owned(),
        };
        let summary = format!(
            "checkpoint {revoke} cannot be used: {damage}; no sink has committed anything of it, so the job falls back to \
             {instead}"
        );
        let prepared = prepared_since(manifest.as_ref(), floor(standing, &restore));
        Ok(Some(Revocation { checkpoint: revoke, prepared, summary }))
    }

    async fn examine(&self, completed: &CompletedCheckpoint, files: bool) -> Result<Examined> {
        let manifest = match manifest::read(&self.env, &*self.store, &completed.manifest).await {
            Ok(manifest) => manifest,
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                return Ok(Examined { manifest: None, damage: Some(error.to_string()) });
            }
            Err(error) => return Err(error),
        };
        let mut damage = None;
        if files {
            for file in manifest.files() {
                let found = snapshots::check_file(&self.env, &*self.store, file, &mut |_| {}).await?;
                if let Some(what) = found {
                    damage = Some(format!("{} {what}", file.path));
                    break;
                }
            }
        }
        Ok(Examined { manifest: Some(manifest), damage })
    }

    /// What each sink can say about the damaged checkpoint.
    async fn proofs(
        &mut self,
        standing: &Standing,
        damaged: &CompletedCheckpoint,
        manifest: Option<&Manifest>,
    ) -> Result<BTreeMap<Uid, fallback::SinkProof>> {
        let since = fallback::instead(standing, damaged.checkpoint).map(|restore| floor(standing, &restore));
        let since = since.unwrap_or_default();
        let unconfirmed = standing.unconfirmed.contains(&damaged.checkpoint);
        let prepared = manifest.map(|manifest| prepared_since(Some(manifest), since));
        let held = self.held(&nobody(standing.job)).await?;
        let mut proofs = BTreeMap::new();
        for (uid, markers) in held {
            let newer = |marker: &Marker| marker.lineage == damaged.lineage && marker.checkpoint > since;
            let visible = markers.iter().any(newer);
            let wrote = prepared.as_ref().map(|prepared| prepared.contains_key(&uid));
            proofs.insert(uid, proof(visible, unconfirmed, wrote));
        }
        // A sink that the program no longer has cannot be asked what became of its output.
        for uid in prepared.into_iter().flat_map(BTreeMap::into_keys) {
            proofs.entry(uid).or_insert(fallback::SinkProof::Unknown);
        }
        Ok(proofs)
    }
}

/// The newest checkpoint of the current line that stays as it is: what sinks sealed after it belongs to the damaged one.
fn floor(standing: &Standing, restore: &Restores) -> CheckpointId {
    match restore {
        Restores::Own(own) if own.lineage == standing.attempt.lineage => own.checkpoint,
        _ => CheckpointId::default(),
    }
}

fn prepared_since(
    manifest: Option<&Manifest>,
    since: CheckpointId,
) -> BTreeMap<Uid, Vec<PreparedTransaction>> {
    let mut prepared: BTreeMap<Uid, Vec<PreparedTransaction>> = BTreeMap::new();
    for operator in manifest.into_iter().flat_map(|manifest| &manifest.operators) {
        let all = operator.subtasks.iter().flat_map(|subtask| &subtask.prepared);
        let mut newer = all.filter(|it| it.checkpoint > since).cloned().peekable();
        if newer.peek().is_some() {
            prepared.entry(operator.uid.clone()).or_default().extend(newer);
        }
    }
    prepared
}
