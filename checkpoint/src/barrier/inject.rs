//! Step 1: what a source task does when the coordinator asks for a barrier. Called by the loop of a source's task, which
//! receives requests and cancellations in the coordinator's order. Invariant: the numbers of the barriers that leave a
//! source grow, and no record leaves it after the barrier of a stop unless that stop was cancelled.

use types::{CheckpointId, Error, Result};

use super::{Barrier, BarrierKind};

/// What to do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum InjectStep {
    /// Cut and send the barrier between two batches, once nothing is left inside the chain.
    Inject {
        /// Send the last watermark ahead of it.
        last_watermark: bool,
    },
    /// Nothing: the barrier was sent before, or is no longer wanted.
    Ignore,
}

/// The barriers of one source task.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Injector {
    /// The newest checkpoint injected or cancelled; at first the newest of earlier attempts.
    newest: CheckpointId,
    stop: Option<Barrier>,
    ended: bool,
}

impl Injector {
    /// The state at the start of an attempt whose first checkpoint comes after `newest`.
    #[must_use]
    pub fn new(newest: CheckpointId) -> Self {
        Self { newest, stop: None, ended: false }
    }

    /// A request to inject `barrier`.
    ///
    /// # Errors
    /// `Internal` for a request after a stop, and for the last checkpoint of a source that has not ended.
    pub fn on_request(&mut self, barrier: Barrier) -> Result<InjectStep> {
        if barrier.checkpoint <= self.newest {
            return Ok(InjectStep::Ignore);
        }
        if let Some(stop) = self.stop {
            return Err(Error::internal(format!(
                "checkpoint {} was requested after the stop with checkpoint {}",
                barrier.checkpoint, stop.checkpoint
            )));
        }
        if barrier.kind == BarrierKind::Last && !self.ended {
            return Err(Error::internal(format!(
                "checkpoint {} was requested as the last one of a source that has not ended",
                barrier.checkpoint
            )));
        }
        self.newest = barrier.checkpoint;
        let mut last_watermark = false;
        if let BarrierKind::Stop { drain } = barrier.kind {
            self.stop = Some(barrier);
            // The end of the input has sent it already.
            last_watermark = drain && !self.ended;
        }
        Ok(InjectStep::Inject { last_watermark })
    }

    /// Checkpoint `checkpoint` is given up. A stop that is not a drain is thereby undone and the source reads on; a
    /// drain cannot be undone, since the last watermark is out: the coordinator restarts the job from before it.
    pub fn on_cancel(&mut self, checkpoint: CheckpointId) {
        self.newest = self.newest.max(checkpoint);
        let undone =
            |stop: Barrier| stop.checkpoint == checkpoint && stop.kind == BarrierKind::Stop { drain: false };
        if self.stop.is_some_and(undone) {
            self.stop = None;
        }
    }

    /// The source has nothing more to read. Barriers still follow.
    ///
    /// # Errors
    /// `Internal` if it ended before, or while it was stopped.
    pub fn on_end(&mut self) -> Result<()> {
        if self.ended || self.stop.is_some() {
            return Err(Error::internal("a source ended that was not reading"));
        }
        self.ended = true;
        Ok(())
    }

    /// Whether records and watermarks may be sent.
    #[must_use]
    pub fn may_emit(&self) -> bool {
        !self.ended && self.stop.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: InjectStep = InjectStep::Inject { last_watermark: false };

    fn barrier(checkpoint: u64, kind: BarrierKind) -> Barrier {
        Barrier { checkpoint: CheckpointId(checkpoint), kind }
    }

    fn ordinary(checkpoint: u64) -> Barrier {
        barrier(checkpoint, BarrierKind::Checkpoint)
    }

    #[test]
    fn numbers_grow_and_duplicates_are_ignored() -> Result<()> {
        let mut injector = Injector::new(CheckpointId(4));
        assert_eq!(injector.on_request(ordinary(4))?, InjectStep::Ignore);
        assert_eq!(injector.on_request(ordinary(5))?, SENT);
        assert_eq!(injector.on_request(ordinary(5))?, InjectStep::Ignore);
        assert_eq!(injector.on_request(ordinary(7))?, SENT);
        assert_eq!(injector.on_request(ordinary(6))?, InjectStep::Ignore);
        Ok(())
    }

    #[test]
    fn a_cancelled_request_is_not_injected_later() -> Result<()> {
        let mut injector = Injector::new(CheckpointId(0));
        injector.on_cancel(CheckpointId(1));
        assert_eq!(injector.on_request(ordinary(1))?, InjectStep::Ignore);
        assert_eq!(injector.on_request(ordinary(2))?, SENT);
        Ok(())
    }

    #[test]
    fn a_stop_silences_the_source_until_it_is_cancelled() -> Result<()> {
        let mut injector = Injector::new(CheckpointId(0));
        assert_eq!(injector.on_request(barrier(1, BarrierKind::Stop { drain: false }))?, SENT);
        assert!(!injector.may_emit());
        assert!(injector.on_request(ordinary(2)).is_err());
        assert!(injector.on_end().is_err());
        injector.on_cancel(CheckpointId(1));
        assert!(injector.may_emit());
        assert_eq!(injector.on_request(ordinary(2))?, SENT);
        Ok(())
    }

    #[test]
    fn a_drain_sends_the_last_watermark_and_cannot_be_undone() -> Result<()> {
        let mut injector = Injector::new(CheckpointId(0));
        let drain = barrier(1, BarrierKind::Stop { drain: true });
        assert_eq!(injector.on_request(drain)?, InjectStep::Inject { last_watermark: true });
        injector.on_cancel(CheckpointId(1));
        assert!(!injector.may_emit());
        Ok(())
    }

    #[test]
    fn barriers_follow_the_end_and_only_then_the_last_one() -> Result<()> {
        let mut injector = Injector::new(CheckpointId(0));
        assert!(injector.on_request(barrier(1, BarrierKind::Last)).is_err());
        injector.on_end()?;
        assert!(!injector.may_emit());
        assert!(injector.on_end().is_err());
        assert_eq!(injector.on_request(ordinary(1))?, SENT);
        assert_eq!(injector.on_request(barrier(2, BarrierKind::Last))?, SENT);
        assert_eq!(injector.on_request(barrier(3, BarrierKind::Stop { drain: true }))?, SENT);
        Ok(())
    }
}
