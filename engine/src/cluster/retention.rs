//! What becomes of the checkpoints of a job that was cancelled or has failed. They stay, unless the settings say
//! otherwise; then they go once the end is in the history and the sinks have committed all that the history completed.
//!
//! No task runs any more: what is done here is what a restart would do up to its deployment, so a crash at any point
//! leaves a job that can go on, or a garbage mark with which the next start goes on. What does not succeed leaves the
//! checkpoints where they are. Savepoints are the user's: no mark can list them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use checkpoint::{
    collect::Collector,
    history::{self, EndKind, JobLock, Kind, Line},
};
use types::{Error, ErrorKind, Result};

use super::{
    job_manager::JobManager,
    launch::{Begun, confirm},
};

/// So long the sinks may take to commit what the history completed; the job has ended, and its process is waited for.
const LONGEST_COMMIT: Duration = Duration::from_secs(10);

/// After which ends checkpoints are kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retention {
    pub(crate) keep_on_cancel: bool,
    pub(crate) keep_on_failure: bool,
}

impl JobManager {
    /// The job was cancelled, and the history says so.
    pub(super) async fn let_go_cancelled(&mut self, lock: &JobLock) {
        if !self.retention.keep_on_cancel {
            self.let_go(lock, EndKind::Cancelled, "checkpoints.keep-on-cancel").await;
        }
    }

    /// The restart strategy gave up.
    pub(super) async fn let_go_failed(&mut self, lock: &JobLock, why: &Error) {
        // After damage, or when something promised is lost, they are what the user has left; another program, or other
        // settings, may go on from them; and where nothing has run they are those of earlier processes.
        let kept = matches!(
            why.kind(),
            ErrorKind::Corrupt
                | ErrorKind::Lost
                | ErrorKind::Fenced
                | ErrorKind::IncompatibleState
                | ErrorKind::InvalidJob
        );
        if !self.retention.keep_on_failure && self.has_run && !kept {
            let end = EndKind::Failed(why.to_string());
            self.let_go(lock, end, "checkpoints.keep-on-failure").await;
        }
    }

    async fn let_go(&mut self, lock: &JobLock, end: EndKind, setting: &str) {
        let (job, how) = (self.plan.job_name.clone(), end.name());
        let line = match self.try_let_go(lock, end).await {
            Ok(false) => return,
            Ok(true) => format!("job {job}: {how}, and its checkpoints are removed ({setting} is false)"),
            Err(error) => format!(
                "job {job}: {how}, and its checkpoints stay although {setting} is false: {error}; the next start goes \
                 on from them"
            ),
        };
        self.env.warn(&line);
    }

    /// Whether there was anything to remove.
    async fn try_let_go(&mut self, lock: &JobLock, end: EndKind) -> Result<bool> {
        let newest = history::open(&self.env, Arc::clone(&self.store)).await?;
        // Where this process has started nothing, it ends nothing.
        if !self.has_started || newest.is_none_or(|newest| newest.standing.completed.is_empty()) {
            return Ok(false);
        }
        if let Some(stuck) = self.stuck.take() {
            return Err(stuck);
        }
        let Ok(Begun { info, mut history, restore, revocation }) = self.begin(lock, true, Line::Any).await?
        else {
            return Ok(false);
        };
        let settled = match revocation {
            Some(damaged) => Err(Error::corrupt(format!("checkpoint {} is damaged", damaged.checkpoint()))),
            None => {
                let env = self.env.clone();
                let settle = self.settle_sinks(&info, &restore, BTreeMap::new(), &history);
                let late = || Error::unavailable("the sinks do not commit what the history completed");
                // No record on its way is ever dropped: nothing could follow it.
                match env.timeout(LONGEST_COMMIT, settle).await.unwrap_or_else(|| Err(late())) {
                    Ok(()) => confirm(&restore, &mut history).await,
                    late => late,
                }
            }
        };
        let cancelled = self.cancel_tasks(info.attempt).await.map(drop);
        let ended = history.append(Kind::Ended(end)).await;
        // What went wrong first is why.
        settled.and(cancelled)?;
        ended?;
        let gone = Collector::new(&self.env, Arc::clone(&self.store), 1).give_up(&mut history).await;
        match gone {
            // Decided already: the next start deletes what is left.
            Err(error) if history.standing().starts_over() => {
                self.env.warn(&format!("job {}: files are deleted later: {error}", self.plan.job_name));
                Ok(true)
            }
            gone => gone.map(|()| true),
        }
    }
}
