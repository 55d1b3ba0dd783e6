//! Tasks that call functions of the user's, and what a manager does when they are to end: each ends where it waits, and
//! one that stays in a function stays.

use std::{pin::pin, time::Duration};

use env::{Env, TaskHandle};
use tokio::sync::oneshot;
use types::{Error, Result};

/// So long nothing is said of tasks that do not end.
const QUIET: Duration = Duration::from_secs(2);

/// Such tasks, with their names. Dropped, they are told to end, and nobody waits for them.
pub(super) struct UserTasks {
    env: Env,
    handles: Vec<(String, TaskHandle)>,
}

impl UserTasks {
    pub(super) fn new(env: &Env) -> Self {
        Self { env: env.clone(), handles: Vec::new() }
    }

    /// Begins one that nobody waits for but [`end`](Self::end).
    pub(super) fn spawn(&mut self, name: String, task: impl Future<Output = ()> + Send + 'static) {
        let handle = self.env.spawn_user(&name, task);
        self.add(name, handle);
    }

    /// Takes one that runs.
    pub(super) fn add(&mut self, name: String, handle: TaskHandle) {
        self.handles.push((name, handle));
    }

    /// What `work` comes to. Not waited for any more, it goes on until [`end`](Self::end).
    ///
    /// # Errors
    /// What it says; `Internal` if it panics.
    pub(super) async fn run<T: Send + 'static>(
        &mut self,
        name: String,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let (done, result) = oneshot::channel();
        self.spawn(name, async move {
            // Who asked may have gone.
            let _gone = done.send(work.await);
        });
        let result = result.await;
        let ended = self.handles.pop();
        match (result, ended) {
            (Ok(result), _) => result,
            (Err(_), Some((_, handle))) => {
                handle.join().await.and(Err(Error::internal("a task ended without a result")))
            }
            (Err(_), None) => Err(Error::internal("a task is gone")),
        }
    }

    /// Ends all of them and waits until they have ended, for so long. Returns the names of those that have not.
    pub(super) async fn end(mut self, limit: Option<Duration>) -> Vec<String> {
        let env = self.env.clone();
        self.handles.iter().for_each(|(_, handle)| handle.abort());
        let begin = env.now();
        let left = |until: Duration| until.saturating_sub(env.now().since(begin));
        let mut stuck = Vec::new();
        for (name, handle) in std::mem::take(&mut self.handles) {
            // Aborted, ended or panicked: it is gone, and a failure was reported by the task itself.
            let mut ended = pin!(handle.join());
            if env.timeout(left(QUIET.min(limit.unwrap_or(QUIET))), ended.as_mut()).await.is_some() {
                continue;
            }
            env.warn(&format!("{name} was told to end, and is still in a function that it has called"));
            let has_ended = match limit {
                None => Some(ended.await),
                Some(limit) => env.timeout(left(limit), ended).await,
            };
            if has_ended.is_some() {
                env.warn(&format!("{name} has ended"));
            } else {
                stuck.push(name);
            }
        }
        stuck
    }
}

impl Drop for UserTasks {
    fn drop(&mut self) {
        self.handles.iter().for_each(|(_, handle)| handle.abort());
    }
}
