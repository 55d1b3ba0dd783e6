//! Step 2: how a task with inputs turns the barriers on them into one cut. Called by the engine's task loop for every
//! barrier, end of input and cancellation. Invariant (exactly-once): at the cut of n, every input has been read up to
//! its barrier n and not beyond. Channels keep their order; cancellations come on another way and may come earlier or
//! later than the barriers they concern.

use std::collections::{BTreeMap, BTreeSet};

use types::{CheckpointId, Error, Result};

use super::CheckpointMode;

/// What to do after a barrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// The other inputs must still deliver it; [`Aligner::is_blocked`] says which inputs to read on.
    Wait,
    /// Cut now and pass the barrier on, then read all inputs.
    Cut,
    /// Nothing: it was delivered before, or its checkpoint is given up.
    Ignore,
}

/// The answer to a barrier.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct AlignStep {
    /// What to do.
    pub then: Align,
    /// Checkpoints that this task can no longer cut, ascending: decline them.
    pub aborted: Vec<CheckpointId>,
}

impl From<Align> for AlignStep {
    fn from(then: Align) -> Self {
        Self { then, aborted: Vec::new() }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Input {
    /// The newest barrier delivered.
    newest: CheckpointId,
    ended: bool,
}

/// The barriers of one task with one input or more.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Aligner {
    mode: CheckpointMode,
    inputs: Vec<Input>,
    /// The newest checkpoint cut.
    passed: CheckpointId,
    /// The inputs that delivered a checkpoint not cut yet. In exactly-once mode never more than one.
    aligning: BTreeMap<CheckpointId, BTreeSet<usize>>,
    /// Given up, and still to be expected on some input.
    cancelled: BTreeSet<CheckpointId>,
}

impl Aligner {
    /// The state of a task with `inputs` channels at the start of an attempt whose first checkpoint comes after
    /// `newest`.
    #[must_use]
    pub fn new(inputs: usize, mode: CheckpointMode, newest: CheckpointId) -> Self {
        let input = Input { newest, ended: false };
        Self {
            mode,
            inputs: vec![input; inputs],
            passed: newest,
            aligning: BTreeMap::new(),
            cancelled: BTreeSet::new(),
        }
    }

    /// Barrier `checkpoint` was read from `input`.
    ///
    /// # Errors
    /// `Internal` if the input is blocked or unknown, and if the barrier is older than one that the input delivered
    /// before and was not cancelled: the order of the channel is broken.
    pub fn on_barrier(&mut self, input: usize, checkpoint: CheckpointId) -> Result<AlignStep> {
        let newest = self.input(input)?.newest;
        if checkpoint == newest || (checkpoint < newest && self.cancelled.contains(&checkpoint)) {
            return Ok(Align::Ignore.into());
        }
        if checkpoint < newest {
            return Err(Error::internal(format!(
                "barrier {checkpoint} came after barrier {newest} on input {input}: the channel lost its order"
            )));
        }
        if self.is_blocked(input) {
            return Err(Error::internal(format!(
                "input {input} was read up to barrier {checkpoint} while barrier {newest} blocked it"
            )));
        }
        self.input(input)?.newest = checkpoint;
        let step = if self.inputs.len() == 1 && self.cancelled.is_empty() {
            self.cut(checkpoint)
        } else {
            self.deliver(input, checkpoint)
        };
        self.forget_cancelled();
        Ok(step)
    }

    /// `input` has ended. Its channel stays, and barriers still come through it. Says whether all inputs have ended.
    ///
    /// # Errors
    /// `Internal` if it ended before, is blocked, or is unknown.
    pub fn on_end(&mut self, input: usize) -> Result<bool> {
        if self.input(input)?.ended || self.is_blocked(input) {
            return Err(Error::internal(format!("input {input} ended that could not be read")));
        }
        self.input(input)?.ended = true;
        Ok(self.inputs.iter().all(|input| input.ended))
    }

    /// Checkpoint `checkpoint` is given up: inputs that it blocked are read on, barriers of it that still come are
    /// ignored. Without effect if this task has cut it already.
    pub fn on_cancel(&mut self, checkpoint: CheckpointId) {
        if checkpoint > self.passed {
            self.aligning.remove(&checkpoint);
            self.cancelled.insert(checkpoint);
            self.forget_cancelled();
        }
    }

    /// Whether `input` must not be read now.
    #[must_use]
    pub fn is_blocked(&self, input: usize) -> bool {
        self.mode == CheckpointMode::ExactlyOnce
            && self.aligning.values().any(|inputs| inputs.contains(&input))
    }

    /// Whether some input has delivered a barrier that others have not: the task is aligning.
    #[must_use]
    pub fn is_aligning(&self) -> bool {
        !self.aligning.is_empty()
    }

    fn input(&mut self, input: usize) -> Result<&mut Input> {
        let count = self.inputs.len();
        let unknown = || Error::internal(format!("there is no input {input}: the task has {count}"));
        self.inputs.get_mut(input).ok_or_else(unknown)
    }

    fn deliver(&mut self, input: usize, checkpoint: CheckpointId) -> AlignStep {
        if self.cancelled.contains(&checkpoint) {
            return Align::Ignore.into();
        }
        let mut aborted = Vec::new();
        if self.mode == CheckpointMode::ExactlyOnce {
            // A task further up gave up the older of the two: it cannot come through that input any more.
            if self.aligning.last_key_value().is_some_and(|(newer, _)| *newer > checkpoint) {
                self.cancelled.insert(checkpoint);
                return AlignStep { then: Align::Ignore, aborted: vec![checkpoint] };
            }
            aborted = self.abort_before(checkpoint);
        }
        let delivered = self.aligning.entry(checkpoint).or_default();
        delivered.insert(input);
        if delivered.len() < self.inputs.len() {
            return AlignStep { then: Align::Wait, aborted };
        }
        let mut step = self.cut(checkpoint);
        aborted.append(&mut step.aborted);
        AlignStep { aborted, ..step }
    }

    fn cut(&mut self, checkpoint: CheckpointId) -> AlignStep {
        let aborted = self.abort_before(checkpoint);
        self.aligning.remove(&checkpoint);
        self.passed = checkpoint;
        AlignStep { then: Align::Cut, aborted }
    }

    fn abort_before(&mut self, checkpoint: CheckpointId) -> Vec<CheckpointId> {
        let newer = self.aligning.split_off(&checkpoint);
        let aborted: Vec<_> = std::mem::replace(&mut self.aligning, newer).into_keys().collect();
        self.cancelled.extend(&aborted);
        aborted
    }

    /// What every input has gone past can come no more.
    fn forget_cancelled(&mut self) {
        if let Some(oldest) = self.inputs.iter().map(|input| input.newest).min() {
            self.cancelled.retain(|checkpoint| *checkpoint > oldest);
        }
    }
}

#[cfg(test)]
mod tests;
