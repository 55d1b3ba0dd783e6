//! What a start has the sinks' committers do before anything runs: say what they hold and what they lack, commit what is
//! complete, take back what is revoked. Functions of the user's: a TaskManager has them run beside itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use checkpoint::manifest::PreparedTransaction;
use env::{Env, Store};
use types::{Error, Result, SubtaskIndex, Uid};

use super::{
    build::sinks,
    message::{AttemptInfo, SinkToResolve},
};
use crate::{
    api::{
        erased::AnyCommitter,
        sink::{Marker, SinkContext},
    },
    graph::physical::Plan,
    task::sink::{commit_for_ever, transaction_of},
};

/// The committers of a plan's sinks, for one attempt.
#[derive(Clone)]
pub(super) struct Committers {
    pub(super) env: Env,
    pub(super) plan: Arc<Plan>,
    /// Where the checkpoints are.
    pub(super) store: Arc<dyn Store>,
    pub(super) info: AttemptInfo,
}

impl Committers {
    /// What the sinks hold.
    ///
    /// # Errors
    /// What a sink says.
    pub(super) async fn held(self) -> Result<Vec<(Uid, Vec<Marker>)>> {
        let mut held = Vec::new();
        for (uid, mut committer, _) in self.open().await? {
            let markers = committer.held().await.map_err(|error| error.context(format!("sink {uid}")))?;
            held.push((uid, markers));
        }
        Ok(held)
    }

    /// The sinks that do not find all that they prepared.
    ///
    /// # Errors
    /// What a sink says.
    pub(super) async fn lack(self, prepared: Vec<(Uid, Vec<PreparedTransaction>)>) -> Result<BTreeSet<Uid>> {
        let mut lack = BTreeSet::new();
        let mut committers = self.open().await?;
        for (uid, transactions) in prepared {
            let Some((_, committer, context)) = committers.iter_mut().find(|(of, ..)| *of == uid) else {
                lack.insert(uid);
                continue;
            };
            for transaction in &transactions {
                let found =
                    committer.finds(&transaction_of(context, transaction), &transaction.payload).await;
                if !found.map_err(|error| error.context(format!("sink {uid}")))? {
                    lack.insert(uid.clone());
                }
            }
        }
        Ok(lack)
    }

    /// Commits and takes back. Returns a sink that has committed something revoked, if one has.
    ///
    /// # Errors
    /// What a sink says; `IncompatibleState` if there is something to do for a sink that is gone.
    pub(super) async fn resolve(self, resolve: Vec<SinkToResolve>) -> Result<Option<Uid>> {
        let mut work: BTreeMap<Uid, SinkToResolve> =
            resolve.into_iter().map(|it| (it.uid.clone(), it)).collect();
        let mut committers = self.open().await?;
        for (uid, committer, context) in &mut committers {
            let (revoke, commit) = work.remove(uid).map(|it| (it.revoke, it.commit)).unwrap_or_default();
            // Commits are in the order of checkpoints, and what is revoked is newer than what is committed.
            for transaction in commit.as_slice() {
                let id = transaction_of(context, transaction);
                commit_for_ever(&self.env, &mut **committer, &id, &transaction.payload).await?;
            }
            for transaction in &revoke {
                let id = transaction_of(context, transaction);
                if !committer
                    .revoke(&id, &transaction.payload)
                    .await
                    .map_err(|error| error.context(format!("sink {uid}, revoke")))?
                {
                    return Ok(Some(uid.clone()));
                }
            }
        }
        // A renamed sink keeps what it left under all its names in one place: nothing is swept before all is committed.
        for (uid, committer, _) in &mut committers {
            committer.sweep(&[]).await.map_err(|error| error.context(format!("sink {uid}, sweep")))?;
        }
        match work.into_values().find(|it| !it.commit.as_slice().is_empty() || !it.revoke.is_empty()) {
            None => Ok(None),
            Some(left) => Err(Error::incompatible(format!(
                "sink {} still holds transactions that the job history {}, but the job has no exactly-once sink of that \
                 name: start once with it",
                left.uid,
                if left.commit.as_slice().is_empty() { "revoked" } else { "completed" }
            ))),
        }
    }

    async fn open(&self) -> Result<Vec<(Uid, Box<dyn AnyCommitter>, SinkContext)>> {
        let mut committers = Vec::new();
        for named in sinks(&self.plan) {
            let context = named.context(&self.env, &self.info, SubtaskIndex(0), &*self.store);
            if let Some(committer) = named.sink.committer(context.clone()) {
                let uid = named.uid;
                let committer = committer.await.map_err(|error| error.context(format!("sink {uid}")))?;
                committers.push((uid, committer, context));
            }
        }
        Ok(committers)
    }
}
