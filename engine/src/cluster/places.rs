//! The JobManager's part in comparing where a job reads and writes with what its snapshots remember
//! ([`recovery::places`](crate::recovery::places)): it asks sources and sinks once, and checks before the start record.

use std::{collections::BTreeMap, sync::Arc};

use checkpoint::{
    history::{From, Standing},
    manifest::{self, Manifest},
};
use types::{Error, ErrorKind, Result, Uid};

use super::job_manager::JobManager;
use crate::{graph::logical::VertexKind, recovery::places};

impl JobManager {
    /// Asks all sources and sinks where they are.
    ///
    /// # Errors
    /// As the outside says; `InvalidJob` if one that may have moved is nowhere.
    pub(super) async fn find_places(&mut self) -> Result<()> {
        let mut found = BTreeMap::new();
        for vertex in &self.plan.graph.vertices {
            let Some(uid) = &vertex.uid else { continue };
            let place = match &vertex.kind {
                VertexKind::Source(source) => source.place(&self.env),
                VertexKind::Sink(sink) => sink.place(&self.env),
                _ => continue,
            };
            let place = place.await.map_err(|error| error.context(format!("{} {uid}", vertex.kind_name)))?;
            found.extend(place.map(|place| (uid.clone(), place)));
        }
        if let Some(unknown) = self.start.allow_moved.iter().find(|uid| !found.contains_key(uid)) {
            let known: Vec<_> = found.keys().map(Uid::as_str).collect();
            return Err(Error::invalid_job(format!(
                "--allow-moved {unknown}: the job has no source or sink of that name that could move; there are: {}",
                known.join(", ")
            )));
        }
        self.places = found;
        Ok(())
    }

    /// Whether a start from `manifest` finds everything where it was.
    ///
    /// # Errors
    /// `IncompatibleState` naming what is elsewhere.
    pub(super) async fn check_places(
        &self,
        manifest: &Manifest,
        snapshot: &str,
        standing: Option<&Standing>,
    ) -> Result<()> {
        let mut elsewhere = self.elsewhere(manifest)?;
        if !self.continues() {
            // Another line of history may write elsewhere; what the present one left pending cannot.
            elsewhere.retain(|it| !it.is_sink);
        }
        places::refuse(&elsewhere, snapshot)?;
        self.check_pending_places(standing).await
    }

    /// Whether what a start commits first of all, of checkpoints that it does not restore, is where the sinks are.
    ///
    /// # Errors
    /// `IncompatibleState` naming what is elsewhere.
    pub(super) async fn check_pending_places(&self, standing: Option<&Standing>) -> Result<()> {
        let Some(standing) = standing.filter(|_| !self.continues() && !self.start.abandon_pending) else {
            return Ok(());
        };
        for completed in standing.completed.iter().filter(|it| standing.unconfirmed.contains(&it.checkpoint))
        {
            match manifest::read(&self.env, &*self.store, &completed.manifest).await {
                Ok(pending) => {
                    let mut elsewhere = self.elsewhere(&pending)?;
                    elsewhere.retain(|it| it.is_sink && it.has_prepared);
                    places::refuse_pending(&elsewhere, &format!("checkpoint {}", completed.checkpoint))?;
                }
                // The start says what to do about it.
                Err(error) if error.kind() == ErrorKind::Corrupt => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether a job that has finished is asked for once more, and not for something else.
    ///
    /// # Errors
    /// `IncompatibleState` naming what is elsewhere.
    pub(super) async fn check_finished_places(&self, standing: &Standing) -> Result<()> {
        let Some(last) = standing.completed.last() else { return Ok(()) };
        match manifest::read(&self.env, &*self.store, &last.manifest).await {
            Ok(manifest) => {
                let snapshot = format!("checkpoint {}", last.checkpoint);
                places::refuse_finished(&self.elsewhere(&manifest)?, &snapshot)
            }
            // Nothing of it is needed any more.
            Err(error) if error.kind() == ErrorKind::Corrupt => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The manifest as it is dealt out: with positions where the sources read now.
    ///
    /// # Errors
    /// As [`check_places`](Self::check_places); what the sources say.
    pub(super) fn moved(&self, manifest: Arc<Manifest>) -> Result<Arc<Manifest>> {
        let mut elsewhere = self.elsewhere(&manifest)?;
        elsewhere.retain(|it| !it.is_sink);
        places::refuse(&elsewhere, &format!("checkpoint {}", manifest.checkpoint))?;
        let mut manifest = manifest;
        if !self.start.allow_moved.is_empty() {
            places::apply(&self.plan, Arc::make_mut(&mut manifest), &self.places)?;
        }
        Ok(manifest)
    }

    fn elsewhere(&self, manifest: &Manifest) -> Result<Vec<places::Elsewhere>> {
        places::elsewhere(&self.plan, manifest, &self.places, &self.start.allow_moved)
    }

    fn continues(&self) -> bool {
        matches!(self.start.from, From::Auto | From::Latest)
    }
}
