//! Tasks that call functions of the user's, and what a manager does when they are to end: each ends where it waits, and
//! one that stays in a function stays.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use env::{Env, TaskHandle};
use tokio::sync::oneshot;
use types::{Error, Result};

/// So long nothing is said of tasks that do not end.
const QUIET: Duration = Duration::from_secs(2);

/// Such tasks, with their names. Dropped, they are told to end, and nobody waits for them.
pub(super) struct UserTasks {
    env: Env,
    running: Vec<RunningTask>,
}

struct RunningTask {
    name: String,
    handle: TaskHandle,
    /// Whether it has a thread: one that has none waits for those that have.
    has_thread: Arc<AtomicBool>,
}

impl UserTasks {
    pub(super) fn new(env: &Env) -> Self {
        Self { env: env.clone(), running: Vec::new() }
    }

    /// Begins one that nobody waits for but [`end`](Self::end).
    pub(super) fn spawn(&mut self, name: String, task: impl Future<Output = ()> + Send + 'static) {
        let has_thread = Arc::<AtomicBool>::default();
        let (mut task, says) = (Box::pin(task), Arc::clone(&has_thread));
        let task = poll_fn(move |cx| {
            says.store(true, Ordering::Relaxed);
            let polled = task.as_mut().poll(cx);
            says.store(false, Ordering::Relaxed);
            polled
        });
        let handle = self.env.spawn_user(&name, task);
        self.running.push(RunningTask { name, handle, has_thread });
    }

    /// Takes one that runs, and calls no functions of the user's.
    pub(super) fn add(&mut self, name: String, handle: TaskHandle) {
        self.running.push(RunningTask { name, handle, has_thread: Arc::default() });
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
        match (result, self.running.pop()) {
            (Ok(result), _) => result,
            (Err(_), ended) => {
                if let Some(ended) = ended {
                    ended.handle.join().await?;
                }
                Err(Error::internal("a task ended without a result"))
            }
        }
    }

    /// Ends all of them and waits until they have ended, for so long. Returns the names of those that have not: of those in
    /// a function, if any are, and not of those that wait for the threads of these.
    pub(super) async fn end(mut self, limit: Option<Duration>) -> Vec<String> {
        let env = self.env.clone();
        self.running.iter().for_each(|task| task.handle.abort());
        let begin = env.now();
        let left = |until: Duration| until.saturating_sub(env.now().since(begin));
        let (mut stuck, mut waiting) = (Vec::new(), Vec::new());
        for RunningTask { name, handle, has_thread } in std::mem::take(&mut self.running) {
            // Aborted, ended or panicked: it is gone, and a failure was reported by the task itself.
            let mut ended = pin!(handle.join());
            if env.timeout(left(QUIET.min(limit.unwrap_or(QUIET))), ended.as_mut()).await.is_some() {
                continue;
            }
            let is_inside = has_thread.load(Ordering::Relaxed);
            if is_inside {
                env.warn(&format!("{name} was told to end, and is still in a function that it has called"));
            }
            let has_ended = match limit {
                None => Some(ended.await),
                Some(limit) => env.timeout(left(limit), ended).await,
            };
            match (has_ended, is_inside) {
                (Some(_), true) => env.warn(&format!("{name} has ended")),
                (Some(_), false) => {}
                (None, true) => stuck.push(name),
                (None, false) => waiting.push(name),
            }
        }
        if stuck.is_empty() { waiting } else { stuck }
    }
}

impl Drop for UserTasks {
    fn drop(&mut self) {
        self.running.iter().for_each(|task| task.handle.abort());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{future::pending, sync::mpsc};

    use tokio::runtime::{Builder, Runtime};

    use super::*;

    fn runtime() -> Runtime {
        Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
    }

    #[test]
    fn only_those_in_a_function_are_named() {
        let (users, control) = (runtime(), runtime());
        let (release, may) = mpsc::sync_channel::<()>(1);
        let stuck = control.block_on(async {
            let mut tasks = UserTasks::new(&Env::real_with(users.handle().clone()));
            let (begins, begun) = oneshot::channel();
            tasks.spawn("waits".to_owned(), pending());
            tasks.spawn("stays".to_owned(), async move {
                begins.send(()).unwrap();
                let _released = may.recv();
            });
            tasks.spawn("never begins".to_owned(), pending());
            begun.await.unwrap();
            tasks.end(Some(Duration::from_millis(50))).await
        });
        drop(release);
        assert_eq!(stuck, ["stays"]);
    }
}
