//! The JobManager's part in what completed checkpoints left pending at the sinks. A start commits it first of all, unless
//! the user gives it up; one that could not, or would lose it or write it twice, is refused before the start record.

use std::{collections::BTreeSet, sync::Arc};

use checkpoint::history::{self, RestorePlan, Source, Standing, Unconfirmed, start};
use types::{JobId, Result, Uid};

use super::{
    job_manager::JobManager,
    launch::nobody,
    message::{ToJobManager, ToTaskManager},
};
use crate::{
    graph::exactly_once_names,
    recovery::{
        pending,
        places::{self, Elsewhere},
    },
    task::message::Failure,
};

impl JobManager {
    /// What a start commits first of all.
    async fn pending(&self, standing: Option<&Standing>) -> Result<Vec<Unconfirmed>> {
        let commits = self.start.from.continues(standing) || !self.start.abandon_pending;
        match standing.filter(|_| commits) {
            Some(it) => Unconfirmed::read(&self.env, &*self.store, it, &it.unconfirmed).await,
            None => Ok(Vec::new()),
        }
    }

    /// Whether a start from a snapshot of another directory leaves output behind there.
    ///
    /// # Errors
    /// `Conflict` if it does.
    pub(super) fn check_left_behind(&self, standing: Option<&Standing>) -> Result<()> {
        match self.start.from.snapshot() {
            Some(location)
                if !self.start.abandon_pending
                    && !self.start.from.continues(standing)
                    && standing.and_then(|it| start::own(it, location)).is_none() =>
            {
                pending::refuse_left_behind(&location.unconfirmed, location.url())
            }
            _ => Ok(()),
        }
    }

    /// Whether the job still has the sinks that what a start commits first of all needs.
    ///
    /// # Errors
    /// `IncompatibleState` naming the sink.
    pub(super) async fn check_sinks(&self) -> Result<()> {
        let newest = history::open(&self.env, Arc::clone(&self.store)).await?;
        let standing = newest.as_ref().map(|record| &record.standing);
        // Another job's directory is refused as such.
        let Some(standing) = standing.filter(|it| it.job_name == self.plan.job_name) else { return Ok(()) };
        let all = self.pending(Some(standing)).await?;
        let continues = self.start.from.continues(Some(standing));
        let give_up = || pending::giving_up(standing, continues, self.store.url());
        pending::refuse_without_sink(&all, &exactly_once_names(&self.plan.graph), give_up)
    }

    /// Whether what a start commits first of all is where the sinks are: what the user says has moved, too, since nobody
    /// could commit any more what was left behind.
    ///
    /// # Errors
    /// `IncompatibleState` naming what is elsewhere.
    pub(super) async fn check_pending(&mut self, standing: Option<&Standing>) -> Result<()> {
        let Some(standing) = standing else { return Ok(()) };
        let continues = self.start.from.continues(Some(standing));
        let all = self.pending(Some(standing)).await?;
        for it in all {
            // What is damaged is dealt with when the attempt begins.
            let Some(manifest) = &it.manifest else { continue };
            let mut elsewhere = self.sinks_elsewhere(manifest)?;
            elsewhere.retain(|it| !it.prepared.is_empty());
            if !elsewhere.is_empty() {
                let lack = self.lack(standing.job, &elsewhere).await?;
                elsewhere.retain(|it| lack.contains(&it.stored_as));
            }
            places::refuse_pending(&elsewhere, &format!("checkpoint {}", it.checkpoint), continues)?;
        }
        Ok(())
    }

    /// The names of the sinks that do not find where they are now what they had prepared.
    async fn lack(&mut self, job: JobId, elsewhere: &[Elsewhere]) -> Result<BTreeSet<Uid>> {
        let prepared = elsewhere.iter().map(|it| (it.stored_as.clone(), it.prepared.clone())).collect();
        self.to_tasks.send(&ToTaskManager::FindPrepared { info: nobody(job), prepared }).await?;
        let lack = self.answer(|message| match message {
            ToJobManager::SinksLack { result, .. } => Some(result),
            _ => None,
        });
        lack.await?.map_err(Failure::into_error)
    }

    /// Whether a start that begins a new line of history would commit output of an older one beside it.
    ///
    /// # Errors
    /// `Conflict` if it would, and the user does not accept that.
    pub(super) async fn check_beside(&self, standing: Option<&Standing>) -> Result<()> {
        if self.start.from.continues(standing) || self.start.accept_foreign_output {
            return Ok(());
        }
        pending::refuse_beside(&self.pending(standing).await?)
    }

    /// Says what the attempt gives up, and that a line of history begins beside others.
    pub(super) fn tell_given_up(&self, restore: &RestorePlan) {
        let mut lines = pending::given_up(&restore.abandoned, "");
        let begins = !restore.continues;
        if let (true, Some(location), Source::Foreign { .. }) =
            (begins, self.start.from.snapshot(), &restore.source)
        {
            let place = format!(" in {}", location.url());
            lines.extend(pending::given_up(&location.unconfirmed, &place));
        }
        if begins && self.start.accept_foreign_output {
            lines.push(
                "a new line of history begins, and whatever others have written stays beside its output, from now on \
                 without --accept-foreign-output"
                    .to_owned(),
            );
        }
        for line in lines {
            self.env.warn(&format!("job {}: {line}", self.plan.job_name));
        }
    }
}
