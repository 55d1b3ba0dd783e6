//! The lives of an attempt's tasks: written by the JobManager alone, shown in the view. What a task is reported to do
//! must be possible in the state that it is in; anything else fails the attempt.

use std::{collections::BTreeMap, sync::Arc};

use checkpoint::manifest::TaskId;
use types::{Error, Result};

use super::{
    status::{
        At,
        task::{Change, Life, TaskStatus},
    },
    view::SharedView,
};

/// All tasks of the newest attempt, those that have ended too.
pub(crate) struct Lives {
    view: SharedView,
    lives: BTreeMap<TaskId, Life>,
}

impl Lives {
    pub(crate) fn new(view: SharedView) -> Self {
        Self { view, lives: BTreeMap::new() }
    }

    /// The tasks of a new attempt, in place of those before.
    pub(crate) fn plan(&mut self, tasks: impl IntoIterator<Item = TaskId>) {
        self.view.update(|view| view.tasks.clear());
        let first = |task| {
            let view = self.view.clone();
            let show = move |status: TaskStatus| {
                view.update(|view| view.tasks.entry(task).or_default().status = status)
            };
            (task, Life::Created(At::first(Arc::new(show))))
        };
        self.lives = tasks.into_iter().map(first).collect();
    }

    /// `change` has happened to `task`.
    ///
    /// # Errors
    /// `Internal` if it cannot happen to it in its state, or if there is no such task.
    pub(crate) fn change(&mut self, task: TaskId, change: Change) -> Result<()> {
        let Some(life) = self.lives.remove(&task) else {
            return Err(Error::internal(format!("{task} is no task of this attempt and was to {change:?}")));
        };
        let (life, refused) = match life.after(change) {
            Ok(next) => (next, None),
            Err(as_before) => {
                let status = as_before.status();
                (as_before, Some(Error::internal(format!("{task} is {status:?} and cannot {change:?}"))))
            }
        };
        self.lives.insert(task, life);
        refused.map_or(Ok(()), Err)
    }

    /// `change` has happened to all of them.
    ///
    /// # Errors
    /// `Internal` if it cannot happen to one of them in its state.
    pub(crate) fn change_all(&mut self, change: Change) -> Result<()> {
        let tasks: Vec<_> = self.lives.keys().copied().collect();
        tasks.into_iter().try_for_each(|task| self.change(task, change))
    }
}
