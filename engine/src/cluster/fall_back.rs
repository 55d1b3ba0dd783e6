//! Falling back past a damaged newest checkpoint, the one exception to "what the history completed is committed". It
//! happens by itself only when every sink proves that nothing of that checkpoint was committed. Sinks are asked twice:
//! before anything is changed, and again when the start record has fenced the process that might have committed
//! meanwhile. Only then is the revocation a record, and then the sinks are told (`launch`).

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    sync::Arc,
};

use checkpoint::{
    history::{
        self, CompletedCheckpoint, EndKind, JobHistory, RestorePlan, Restores, Standing,
        fallback::{self, Fallback, SinkProof},
    },
    manifest::{self, Manifest, OperatorSnapshot, PreparedTransaction},
    snapshots,
};
use env::{Env, Store};
use futures::{StreamExt, stream};
use types::{CheckpointId, Error, ErrorKind, Result, SnapshotFile, Uid};

use super::{
    build::sinks, job_manager::JobManager, launch::nobody, message::AttemptInfo, places::Snapshot,
    resolve::proof,
};
use crate::{
    api::sink::Marker,
    graph::logical::SINK,
    recovery::{compatible, places},
};

/// So many files are examined at once: a store far away answers late, and each takes no more memory than one piece.
const FILES_AT_ONCE: usize = 8;

/// How often the newest checkpoint is looked at anew because another process has gone on with the job meanwhile: looking
/// is many times faster than checkpoints complete.
const OVERTAKEN_MAX: u32 = 16;

/// A checkpoint that the next start revokes.
pub(super) struct Revocation {
    damaged: CompletedCheckpoint,
    /// Which file is not as it was written, and how.
    damage: String,
    /// What its manifest says that sinks have prepared for it, if it can be read; sinks otherwise throw away all that is
    /// not committed.
    prepared: Option<BTreeMap<Uid, Vec<PreparedTransaction>>>,
    /// The sinks that may have prepared something for it.
    sinks: BTreeSet<Uid>,
    /// Those that are not where they were then, under each of their names.
    elsewhere: BTreeSet<Uid>,
    /// One line for people.
    pub(super) summary: String,
}

impl Revocation {
    pub(super) fn checkpoint(&self) -> CheckpointId {
        self.damaged.checkpoint
    }

    /// What is to be revoked at each sink.
    pub(super) fn into_prepared(self) -> BTreeMap<Uid, Vec<PreparedTransaction>> {
        self.prepared.unwrap_or_default()
    }
}

/// Which files of a checkpoint are to be examined.
enum Which {
    None,
    All,
    AllBut(BTreeSet<String>),
}

impl JobManager {
    /// What a continuation must revoke first, if the checkpoint that it would restore is damaged. Its manifest is always
    /// read; all its files if `suspicious`. Of one whose sinks have yet to commit, only what the checkpoint before it
    /// does not have: this damage would be found too late, when they have; from any other nobody can fall back, and the
    /// restore finds it.
    ///
    /// # Errors
    /// `Corrupt` naming the file and the choices if the job does not fall back by itself.
    pub(super) async fn revocation(
        &mut self,
        automatic: bool,
        suspicious: bool,
    ) -> Result<Option<Revocation>> {
        for _ in 0..OVERTAKEN_MAX {
            let Some(record) = history::open(&self.env, Arc::clone(&self.store)).await? else {
                return Ok(None);
            };
            if !automatic && !self.start.from.continues(Some(&record.standing)) {
                return Ok(None);
            }
            let found = self.revocation_at(&record.standing, suspicious).await;
            match &found {
                Ok(Some(_)) => {}
                Err(error) if error.kind() == ErrorKind::Corrupt => {}
                _ => return found,
            }
            // A process that is about to be taken over deletes what it no longer needs: that is no damage.
            let newest = history::open(&self.env, Arc::clone(&self.store)).await?;
            if newest.is_some_and(|newest| newest.number == record.number) {
                return found;
            }
        }
        Err(Error::retryable(format!(
            "another process goes on with the job in {} all the while: start again",
            self.store.url()
        )))
    }

    async fn revocation_at(&mut self, standing: &Standing, suspicious: bool) -> Result<Option<Revocation>> {
        if standing.end.as_ref().is_some_and(|end| end.kind == EndKind::Finished) {
            return Ok(None);
        }
        let Restores::Own(newest) = standing.restore_point() else { return Ok(None) };
        let (manifest, damage) = match self.read(&newest).await? {
            Err(damage) => (None, Some(damage)),
            Ok(manifest) => {
                let which = if suspicious {
                    Which::All
                } else if standing.unconfirmed.contains(&newest.checkpoint) {
                    self.only_in(standing, &newest).await?
                } else {
                    Which::None
                };
                let damage = self.examine(&manifest, &which).await?;
                (Some(manifest), damage)
            }
        };
        let Some(damage) = damage else { return Ok(None) };
        let before = fallback::instead(standing, newest.checkpoint);
        let older = match &before {
            Some(before) => self.snapshot(standing, before).await?,
            None => Ok(None),
        };
        let prepared = manifest.as_ref().map(|it| prepared_since(it, floor(standing, before.as_ref())));
        let sinks = prepared.iter().flat_map(BTreeMap::keys).cloned().collect();
        // Where its own manifest does not tell, the one before it does, if the same attempt took that.
        let wrote =
            manifest.as_ref().or(older.as_ref().ok().and_then(Option::as_ref).map(|it| &*it.manifest));
        let elsewhere = wrote.map(|wrote| self.sinks_elsewhere(wrote)).transpose()?.unwrap_or_default();
        let elsewhere = elsewhere.into_iter().flat_map(|it| [it.uid, it.stored_as]).collect();
        let mut revocation =
            Revocation { damaged: newest, damage, prepared, sinks, elsewhere, summary: String::new() };
        if revocation.prepared.is_none() {
            let sinks = self.sinks_before(standing, &revocation.damaged).await?;
            revocation.sinks = match sinks {
                Ok(sinks) => sinks,
                Err(why) => return Err(self.refused(standing, &revocation, &why).await),
            };
        }
        if let (None, Ok(Some(older))) = (&revocation.prepared, &older) {
            self.check_sink_places(standing, revocation.checkpoint(), older)?;
        }
        let proofs = self.proofs(standing, &revocation, &nobody(standing.job)).await?;
        let checkpoint = revocation.checkpoint();
        let restore = match fallback::fallback(standing, checkpoint, &proofs) {
            Fallback::Refuse(why) => return Err(self.refused(standing, &revocation, &why).await),
            Fallback::RevokeThenRestore { restore, .. } => restore,
        };
        let instead = match &restore {
            Restores::Own(own) => format!("checkpoint {}", own.checkpoint),
            Restores::Foreign(foreign) => format!("the snapshot in {}", foreign.url),
            Restores::Empty => "the beginning".to_owned(),
        };
        let worse = match older {
            Err(damage) => Some(damage),
            Ok(None) => None,
            Ok(Some(older)) => {
                let dropped = self.dropped(&older.manifest, Some(standing));
                compatible::check(&self.plan, &older.manifest, &dropped, &older.name)?;
                let mut elsewhere = self.elsewhere_in(&older)?;
                elsewhere.retain(|it| !it.is_sink);
                places::refuse(&elsewhere, &older.name)?;
                match restore {
                    Restores::Own(_) => self.examine(&older.manifest, &Which::All).await?,
                    // It is read whole when it is copied.
                    _ => None,
                }
            }
        };
        if let Some(worse) = worse {
            let why = format!("{instead} is damaged as well: {worse}");
            return Err(self.refused(standing, &revocation, &why).await);
        }
        revocation.summary = format!(
            "checkpoint {checkpoint} cannot be used: {}; no sink has committed anything of it, so the job falls back to \
             {instead}",
            revocation.damage
        );
        Ok(Some(revocation))
    }

    /// Whether the sinks are where the checkpoint before the `damaged` one remembers them, which cannot be read.
    ///
    /// # Errors
    /// `IncompatibleState` naming what is elsewhere.
    fn check_sink_places(&self, standing: &Standing, damaged: CheckpointId, older: &Snapshot) -> Result<()> {
        let mut sinks = self.elsewhere_in(older)?;
        sinks.retain(|it| it.is_sink);
        if standing.unconfirmed.contains(&damaged) {
            places::refuse_pending(&sinks, &older.name, true)?;
        }
        places::refuse(&sinks, &older.name)
    }

    /// Asks the sinks once more, now that older processes are fenced, and records the revocation. If one has
    /// committed meanwhile, nothing is changed: the next start decides anew.
    ///
    /// # Errors
    /// `Corrupt` as [`revocation`](Self::revocation); what the history says.
    pub(super) async fn revoke(
        &mut self,
        info: &AttemptInfo,
        revocation: &Revocation,
        restore: &mut RestorePlan,
        history: &mut JobHistory,
    ) -> Result<()> {
        let proofs = self.proofs(history.standing(), revocation, info).await?;
        match history.revoke(restore, &proofs).await? {
            Ok(()) => Ok(()),
            Err(why) => Err(self.refused(history.standing(), revocation, &why).await),
        }
    }

    async fn refused(&self, standing: &Standing, revocation: &Revocation, why: &str) -> Error {
        let (checkpoint, damage) = (revocation.checkpoint(), &revocation.damage);
        let choices = snapshots::choices(&self.env, &self.store, standing, checkpoint).await;
        Error::corrupt(format!(
            "checkpoint {checkpoint} cannot be used: {damage}; the job does not fall back by itself, since {why}; {choices}"
        ))
    }

    /// A manifest; the inner error is what is wrong with it.
    pub(super) async fn read(&self, completed: &CompletedCheckpoint) -> Result<Result<Manifest, String>> {
        match manifest::read(&self.env, &*self.store, &completed.manifest).await {
            Ok(manifest) => Ok(Ok(manifest)),
            Err(error) if error.kind() == ErrorKind::Corrupt => Ok(Err(error.to_string())),
            Err(error) => Err(error),
        }
    }

    /// The sinks of the program that took a checkpoint whose manifest cannot be read: those of the checkpoint before it,
    /// if the same attempt took that one. The inner error says why nobody knows them.
    async fn sinks_before(
        &self,
        standing: &Standing,
        damaged: &CompletedCheckpoint,
    ) -> Result<Result<BTreeSet<Uid>, String>> {
        match fallback::instead(standing, damaged.checkpoint) {
            Some(Restores::Own(older)) if older.attempt == damaged.attempt => {
                // One that is damaged as well is told of when all proofs are there.
                let manifest = self.read(&older).await?.ok();
                let operators = manifest.into_iter().flat_map(|manifest| manifest.operators);
                // A plain sink that the program still has never prepares anything, and is not asked.
                let ours: BTreeSet<Uid> = sinks(&self.plan).into_iter().map(|sink| sink.uid).collect();
                let prepared = |sink: &OperatorSnapshot| {
                    sink.subtasks.iter().any(|subtask| !subtask.prepared.is_empty())
                };
                let sinks = operators.filter(|operator| operator.kind == SINK);
                let asked = sinks.filter(|sink| !ours.contains(&sink.uid) || prepared(sink));
                Ok(Ok(asked.map(|sink| sink.uid).collect()))
            }
            _ => Ok(Err(format!(
                "no other checkpoint of attempt {} tells which sinks its program had",
                damaged.attempt
            ))),
        }
    }

    /// The files whose damage would let the job fall back: those that what stood before does not need as well.
    async fn only_in(&self, standing: &Standing, newest: &CompletedCheckpoint) -> Result<Which> {
        match fallback::instead(standing, newest.checkpoint) {
            None => Ok(Which::None),
            Some(Restores::Empty | Restores::Foreign(_)) => Ok(Which::All),
            Some(Restores::Own(older)) => Ok(match self.read(&older).await? {
                Ok(manifest) => {
                    Which::AllBut(manifest.files().into_iter().map(|it| it.path.clone()).collect())
                }
                Err(_) => Which::None,
            }),
        }
    }

    /// The first damaged file, and how it is damaged.
    async fn examine(&self, manifest: &Manifest, which: &Which) -> Result<Option<String>> {
        let mut files = manifest.files();
        files.retain(|file| match which {
            Which::None => false,
            Which::All => true,
            Which::AllBut(others) => !others.contains(&file.path),
        });
        let check = |file: &SnapshotFile| check(self.env.clone(), Arc::clone(&self.store), file.clone());
        let checks: Vec<_> = files.into_iter().map(check).collect();
        let mut checks = pin!(stream::iter(checks).buffered(FILES_AT_ONCE));
        while let Some(found) = checks.next().await {
            if let Some(damage) = found? {
                return Ok(Some(damage));
            }
        }
        Ok(None)
    }

    /// What each sink can say about the damaged checkpoint.
    async fn proofs(
        &mut self,
        standing: &Standing,
        revocation: &Revocation,
        info: &AttemptInfo,
    ) -> Result<BTreeMap<Uid, SinkProof>> {
        let Revocation { damaged, prepared, sinks, elsewhere, .. } = revocation;
        let since = floor(standing, fallback::instead(standing, damaged.checkpoint).as_ref());
        let unconfirmed = standing.unconfirmed.contains(&damaged.checkpoint);
        let mut proofs = BTreeMap::new();
        for (uid, markers) in self.held(info).await? {
            let newer = |marker: &Marker| marker.lineage == damaged.lineage && marker.checkpoint > since;
            let wrote = prepared.as_ref().map(|prepared| prepared.contains_key(&uid));
            let visible = markers.iter().any(newer);
            let proof = proof(visible, elsewhere.contains(&uid), unconfirmed, wrote);
            proofs.insert(uid, proof);
        }
        // A sink that the program no longer has cannot be asked what became of its output.
        for uid in sinks {
            proofs.entry(uid.clone()).or_insert(SinkProof::Unknown);
        }
        Ok(proofs)
    }
}

/// Reads a file; returns its path and how it is damaged, if it is.
async fn check(env: Env, store: Arc<dyn Store>, file: SnapshotFile) -> Result<Option<String>> {
    let found = snapshots::check_file(&env, &*store, &file, &mut |_| {}).await?;
    Ok(found.map(|what| format!("{} {what}", file.path)))
}

/// The newest checkpoint of the current line that stays as it is: what sinks sealed after it belongs to the damaged one.
fn floor(standing: &Standing, restore: Option<&Restores>) -> CheckpointId {
    match restore {
        Some(Restores::Own(own)) if own.lineage == standing.attempt.lineage => own.checkpoint,
        _ => CheckpointId::default(),
    }
}

fn prepared_since(manifest: &Manifest, since: CheckpointId) -> BTreeMap<Uid, Vec<PreparedTransaction>> {
    let mut prepared: BTreeMap<Uid, Vec<PreparedTransaction>> = BTreeMap::new();
    for operator in &manifest.operators {
        let all = operator.subtasks.iter().flat_map(|subtask| &subtask.prepared);
        let mut newer = all.filter(|it| it.checkpoint > since).cloned().peekable();
        if newer.peek().is_some() {
            prepared.entry(operator.uid.clone()).or_default().extend(newer);
        }
    }
    prepared
}
