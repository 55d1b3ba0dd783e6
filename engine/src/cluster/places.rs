//! The JobManager's part in comparing where a job reads and writes with what its snapshots remember
//! ([`recovery::places`](crate::recovery::places)): it asks sources and sinks once, and checks before the start record.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use checkpoint::{
    history::{EndKind, Restores, Standing},
    manifest::Manifest,
    savepoint::SnapshotLocation,
};
use types::{Error, ErrorKind, Result, Uid};

use super::{job_manager::JobManager, user_tasks::UserTasks};
use crate::{
    graph::logical::VertexKind,
    recovery::places::{self, Elsewhere},
};

/// A snapshot that a start would restore.
pub(super) struct Snapshot {
    pub(super) manifest: Arc<Manifest>,
    /// What it is called in messages.
    pub(super) name: String,
    /// Whether its line of history goes on with it, and with that the output.
    pub(super) goes_on: bool,
}

impl Snapshot {
    fn foreign(location: &SnapshotLocation) -> Self {
        let (manifest, name) = (Arc::clone(&location.manifest), location.url().to_owned());
        Self { manifest, name, goes_on: false }
    }
}

impl JobManager {
    /// Asks all sources and sinks where they are.
    ///
    /// # Errors
    /// As the outside says; `InvalidJob` if one that may have moved is nowhere.
    pub(super) async fn find_places(&mut self) -> Result<()> {
        let mut found = BTreeMap::new();
        for vertex in &self.plan.graph.vertices {
            let Some(uid) = &vertex.uid else { continue };
            let (env, name) = (self.env.clone(), format!("the place of {uid}"));
            // A function of the user's: whoever cancels does not wait for it.
            let mut tasks = UserTasks::new(&self.env);
            let place = match &vertex.kind {
                VertexKind::Source(source) => {
                    let source = Arc::clone(source);
                    tasks.run(name, async move { source.place(&env).await }).await
                }
                VertexKind::Sink(sink) => {
                    let sink = Arc::clone(sink);
                    tasks.run(name, async move { sink.place(&env).await }).await
                }
                _ => continue,
            };
            let place = place.map_err(|error| error.context(format!("{} {uid}", vertex.kind_name)))?;
            found.extend(place.map(|place| (uid.clone(), place)));
        }
        if let Some(unknown) = self.start.allow_moved.iter().find(|uid| !found.contains_key(uid)) {
            let known: Vec<_> = found.keys().map(Uid::as_str).collect();
            return Err(Error::invalid_job(format!(
                "--allow-moved {unknown}: the job has no source or sink of that name that could move; there are: {}",
                known.join(", ")
            )));
        }
        let is_sink = |uid: &Uid| {
            let mut vertices = self.plan.graph.vertices.iter();
            vertices.any(|it| it.uid.as_ref() == Some(uid) && matches!(it.kind, VertexKind::Sink(_)))
        };
        let reads = |uid: &Uid, path: &Path| {
            let place = found.get(uid).map_or("", String::as_str);
            self.plan.graph.vertices.iter().filter(|it| it.uid.as_ref() == Some(uid)).any(|it| {
                match &it.kind {
                    VertexKind::Source(source) => source.reads(place, path),
                    _ => false,
                }
            })
        };
        places::refuse_overlap(&found, is_sink, reads, self.store.local_dir().as_deref())?;
        self.places = found;
        Ok(())
    }

    /// What a start restores; `None` if nothing, or if that is damaged: what to do about it is decided when the attempt
    /// begins.
    ///
    /// # Errors
    /// As the store says.
    pub(super) async fn to_restore(&self, standing: Option<&Standing>) -> Result<Option<Snapshot>> {
        let from = &self.start.from;
        match (from.snapshot(), standing) {
            (location, Some(standing)) if from.continues(Some(standing)) => {
                match (location, standing.restore_point()) {
                    // There it is, wherever it was when the line of history began.
                    (Some(location), Restores::Foreign(_)) => Ok(Some(Snapshot::foreign(location))),
                    (_, restores) => Ok(self.snapshot(standing, &restores).await?.unwrap_or_default()),
                }
            }
            (Some(location), _) => Ok(Some(Snapshot::foreign(location))),
            _ => Ok(None),
        }
    }

    /// What a continuation on top of `standing` restores, if anything; the inner error is what is wrong with it.
    ///
    /// # Errors
    /// As the store says.
    pub(super) async fn snapshot(
        &self,
        standing: &Standing,
        restores: &Restores,
    ) -> Result<Result<Option<Snapshot>, String>> {
        match restores {
            Restores::Empty => Ok(Ok(None)),
            Restores::Own(own) => Ok(self.read(own).await?.map(|manifest| {
                let (manifest, name) = (Arc::new(manifest), format!("checkpoint {}", own.checkpoint));
                Some(Snapshot { manifest, name, goes_on: own.lineage == standing.attempt.lineage })
            })),
            Restores::Foreign(foreign) => match SnapshotLocation::reopen(&self.env, foreign).await {
                Ok(location) => Ok(Ok(Some(Snapshot::foreign(&location)))),
                Err(error) if error.kind() == ErrorKind::Corrupt => Ok(Err(error.to_string())),
                Err(error) => Err(error),
            },
        }
    }

    /// Whether a start from `snapshot` finds everything where it was.
    ///
    /// # Errors
    /// `IncompatibleState` naming what is elsewhere; as [`check_pending`](Self::check_pending).
    pub(super) async fn check_places(
        &mut self,
        snapshot: &Snapshot,
        standing: Option<&Standing>,
    ) -> Result<()> {
        self.check_pending(standing).await?;
        places::refuse(&self.elsewhere_in(snapshot)?, &snapshot.name)
    }

    /// Whether a start that begins a line of history leaves the one before it what that needs: where that has not finished
    /// and is not for the same input and output, its checkpoints would be collected one by one.
    ///
    /// # Errors
    /// `IncompatibleState` naming what is elsewhere.
    pub(super) async fn check_unfinished(&self, standing: Option<&Standing>) -> Result<()> {
        let Some(standing) = standing.filter(|_| !self.start.from.continues(standing)) else { return Ok(()) };
        if standing.end.as_ref().is_some_and(|end| end.kind == EndKind::Finished) {
            return Ok(());
        }
        let restores = standing.restore_point();
        // A snapshot elsewhere stays, and what is damaged is of no use.
        let (Restores::Own(_), Ok(Some(snapshot))) = (&restores, self.snapshot(standing, &restores).await?)
        else {
            return Ok(());
        };
        let lineage = standing.attempt.lineage;
        let of_line = standing.completed.iter().filter(|it| it.lineage == lineage);
        let mut numbers: Vec<_> = of_line.map(|it| it.checkpoint.to_string()).collect();
        if numbers.is_empty() {
            numbers.extend(restores.checkpoint().map(|it| it.to_string()));
        }
        let checkpoints =
            format!("checkpoint{} {}", if numbers.len() == 1 { "" } else { "s" }, numbers.join(", "));
        let elsewhere = self.elsewhere_in(&snapshot)?;
        places::refuse_unfinished(&elsewhere, &snapshot.name, self.store.url(), &checkpoints)
    }

    /// What has another place than `snapshot` remembers, but for those that may.
    ///
    /// # Errors
    /// `Corrupt` if a place cannot be read.
    pub(super) fn elsewhere_in(&self, snapshot: &Snapshot) -> Result<Vec<Elsewhere>> {
        let mut elsewhere = self.elsewhere(&snapshot.manifest)?;
        // A new line of history may write elsewhere, from its first start on.
        elsewhere.retain(|it| snapshot.goes_on || !it.is_sink);
        Ok(elsewhere)
    }

    /// Whether a job that has finished is asked for once more, and not for something else.
    ///
    /// # Errors
    /// `IncompatibleState` naming what is elsewhere.
    pub(super) async fn check_finished_places(&self, standing: &Standing) -> Result<()> {
        let Some(last) = standing.completed.last() else { return Ok(()) };
        match self.read(last).await? {
            Ok(manifest) => {
                let snapshot = format!("checkpoint {}", last.checkpoint);
                places::refuse_finished(&self.elsewhere(&manifest)?, &snapshot)
            }
            // Nothing of it is needed any more.
            Err(_damage) => Ok(()),
        }
    }

    /// The manifest as it is dealt out: with positions where the sources read now.
    ///
    /// # Errors
    /// As [`check_places`](Self::check_places); what the sources say.
    pub(super) async fn moved(&self, manifest: Arc<Manifest>) -> Result<Arc<Manifest>> {
        let mut elsewhere = self.elsewhere(&manifest)?;
        elsewhere.retain(|it| !it.is_sink);
        places::refuse(&elsewhere, &format!("checkpoint {}", manifest.checkpoint))?;
        if self.start.allow_moved.is_empty() {
            return Ok(manifest);
        }
        let (plan, places) = (Arc::clone(&self.plan), self.places.clone());
        let mut tasks = UserTasks::new(&self.env);
        let moved = tasks.run("moving the splits".to_owned(), async move {
            let mut manifest = manifest;
            places::apply(&plan, Arc::make_mut(&mut manifest), &places)?;
            Ok(manifest)
        });
        moved.await
    }

    fn elsewhere(&self, manifest: &Manifest) -> Result<Vec<Elsewhere>> {
        places::elsewhere(&self.plan, manifest, &self.places, &self.start.allow_moved)
    }

    /// The sinks that are not where `manifest` remembers them, whether they may or not.
    ///
    /// # Errors
    /// `Corrupt` if a place cannot be read.
    pub(super) fn sinks_elsewhere(&self, manifest: &Manifest) -> Result<Vec<Elsewhere>> {
        let mut all = places::elsewhere(&self.plan, manifest, &self.places, &BTreeSet::new())?;
        all.retain(|it| it.is_sink);
        Ok(all)
    }
}
