//! What users ask of a running attempt: what goes to the coordinator at once, what is looked at before, and what is answered
//! when the attempt ends first.

use std::collections::{BTreeMap, BTreeSet};

use checkpoint::{
    coordinator::{Answer, End, Event, RequestId},
    restart::is_restartable,
    savepoint,
};
use env::{Message, TaskHandle};
use types::{Error, Result};

use super::{Ask, AttemptEnd, Background, Over, Running};
use crate::cluster::requests::Requests;

/// Savepoints, alone or of stops, whose directory is being looked at.
pub(super) type Checking = BTreeMap<RequestId, (String, TaskHandle)>;

impl Running<'_> {
    pub(super) async fn on_request(&mut self, request: RequestId, ask: Ask) {
        if let Some(end) = self.ending {
            return self.on_late_request(request, &ask, end);
        }
        let event = match ask {
            Ask::Checkpoint => Event::TriggerCheckpoint { request },
            // Nothing is triggered for what is refused, and of a stop it would be too late once the sources have stopped.
            Ask::Savepoint(dir) => {
                let refused = self.attempt.coordinator.refuse_savepoint(&dir);
                let event = Event::TriggerSavepoint { request, dir: dir.clone() };
                return self.check_directory(request, dir, refused, event);
            }
            Ask::Stop { drain, savepoint: Some(dir) } => {
                let refused = self.attempt.coordinator.refuse_stop(Some(&dir));
                let event = Event::Stop { request, drain, savepoint: Some(dir.clone()) };
                return self.check_directory(request, dir, refused, event);
            }
            Ask::Stop { drain, savepoint: None } => Event::Stop { request, drain, savepoint: None },
            Ask::Cancel => Event::Cancel { request },
            Ask::Collect => return self.collect_for(request).await,
        };
        self.step(event).await;
    }

    /// Looks whether a savepoint into `dir` can be written, beside everything else; then `event` follows.
    fn check_directory(&mut self, request: RequestId, dir: String, refused: Option<Error>, event: Event) {
        let taken = self.checking.values().any(|(other, _)| *other == dir);
        let beginning = || Error::conflict(format!("another savepoint into {dir} is beginning"));
        if let Some(why) = taken.then(beginning).or(refused) {
            return self.requests.answer(request, Err(why));
        }
        let of = dir.clone();
        let (env, done) = (self.attempt.env.clone(), self.background.0.clone());
        let check = async move {
            let checked = savepoint::check_directory(&env, &dir).await.map(|()| event);
            let checked =
                checked.map_err(|error| error.context("the job goes on, and nothing was triggered"));
            let _gone = done.send(Message(Background::DirectoryChecked { request, checked })).await;
        };
        let check =
            self.attempt.env.spawn_task(&format!("savepoint directory of request {}", request.0), check);
        self.checking.insert(request, (of, check));
    }

    pub(super) async fn on_directory_checked(&mut self, request: RequestId, checked: Result<Event>) {
        self.checking.remove(&request);
        if let Some(end) = self.ending {
            return self.requests.answer(request, Err(too_late(end)));
        }
        match checked {
            Ok(event) => self.step(event).await,
            Err(error) => self.requests.answer(request, Err(error)),
        }
    }

    /// The end is in the history and the tasks are closing: nothing is begun any more, and who cannot wait for them ends
    /// them.
    fn on_late_request(&mut self, request: RequestId, ask: &Ask, end: End) {
        let answer = match ask {
            Ask::Cancel => {
                self.end = self.ending.take().map(Over::Ended);
                Ok(Answer::Ended { end, checkpoint: None, savepoint: None })
            }
            _ => Err(too_late(end)),
        };
        self.requests.answer(request, answer);
    }
}

/// Refuses what the attempt had begun beside its checkpoints and did not end.
pub(super) async fn refuse_begun(
    end: &AttemptEnd,
    checking: Checking,
    collecting: BTreeSet<RequestId>,
    requests: &mut Requests,
) {
    for (request, (_, check)) in checking {
        check.abort();
        let _ended = check.join().await;
        let refused = match end {
            AttemptEnd::Ended(..) => Error::cancelled("the job ended before the savepoint had begun"),
            AttemptEnd::Failed(_, error) if !is_restartable(error.kind()) => {
                Error::new(error.kind(), format!("the job failed before the savepoint had begun: {error}"))
            }
            AttemptEnd::Suspended(error) => Error::new(error.kind(), error.to_string()),
            AttemptEnd::Failed(_, error) | AttemptEnd::Restart(_, error) => Error::retryable(format!(
                "the attempt failed before the savepoint had begun, ask again: {error}"
            )),
        };
        requests.answer(request, Err(refused));
    }
    for request in collecting {
        let ended = "the attempt ended while files were being deleted, and the next one goes on with them";
        requests.answer(request, Err(Error::retryable(ended)));
    }
}

/// Why nothing is begun for a job whose end is recorded.
fn too_late(end: End) -> Error {
    Error::cancelled(match end {
        End::Finished => "the job has finished",
        End::Stopped | End::Cancelled => "the job has been stopped",
    })
}
