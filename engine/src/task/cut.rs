//! What a task does for a checkpoint, apart from its acknowledgement: the cut at the barrier, the slices in which the
//! changed cells are drained between batches, and handing sealed intervals and merges to the background. Called by the
//! loop in [`run`](super::run); which pieces are still missing is counted in [`snapshot`](super::snapshot).

use std::time::Duration;

use checkpoint::barrier::{Barrier, BarrierKind};
use env::{Env, FaultPoint, Monotonic};
use statebackend::plan_merge;
use types::{CheckpointId, Error, KeyGroupRange, Result, Timestamp};

use super::{
    message::{StepCost, TaskReport},
    run::{Head, Role, Running, Task},
    snapshot::{Cut, Extent},
    upload::RunToWrite,
};
use crate::record::Mark;

/// While the store fails, no checkpoint begins on a task with so many sealed intervals that wait for it: each takes memory,
/// and what changes again and again is in all of them.
const WAITING_MAX: usize = 4;

impl Running {
    /// The cut: nothing is inside the chain. Flips all tables, seals the sink, passes the barrier on.
    pub(super) async fn cut(&mut self, barrier: Barrier) -> Result<()> {
        if barrier.kind == BarrierKind::Checkpoint
            && self.task.uploads.is_failing()
            && self.snapshots.waiting() >= WAITING_MAX
        {
            return self.pass_over(barrier).await;
        }
        let checkpoint = barrier.checkpoint;
        let alignment_us = self.alignments.cut(checkpoint, self.task.env.now());
        let step = Stopwatch::start(&self.task.env);
        let cuts = self.cuts()?;
        let (mut undrained, mut changed) = (0, 0);
        for (_, keyed) in self.task.chain.keyed() {
            changed += keyed.changed_since_barrier();
            keyed.flip(checkpoint);
            // Nothing of the new interval has changed yet.
            undrained += keyed.changed_cells().max(usize::from(keyed.is_undrained()));
        }
        let flipping = step.stop(&self.task.env);
        // A flip with nothing changed still has to come out sealed.
        self.undrained = undrained;
        self.snapshots.begin(checkpoint, cuts, alignment_us, changed as u64);
        self.snapshots.on_step(flipping);
        self.task.env.fault(FaultPoint::CutAfter)?;
        if let Some(sink) = &mut self.task.sink {
            if sink.has_committer() {
                if sink.seal(checkpoint).await? {
                    self.snapshots.preparing(checkpoint);
                }
            } else {
                sink.flush();
                self.snapshots.flushing(checkpoint);
            }
        }
        self.task.chain.send_mark(Mark::Barrier(barrier));
        self.take_sealed();
        Ok(())
    }

    /// Takes no part in a checkpoint, which fails: what has changed goes into the next one.
    async fn pass_over(&mut self, barrier: Barrier) -> Result<()> {
        self.alignments.give_up(barrier.checkpoint);
        self.task.chain.send_mark(Mark::Barrier(barrier));
        let reason = format!("{WAITING_MAX} older ones still wait for the store, which fails");
        let declined = TaskReport::Declined { checkpoint: barrier.checkpoint, reason };
        self.task.reports.send(declined).await
    }

    /// What each durable vertex holds at this moment, keyed state apart.
    fn cuts(&mut self) -> Result<Vec<Cut>> {
        let processing_time = self.task.env.wall();
        let Task { durable, head, chain, groups, .. } = &mut self.task;
        let input = match &*head {
            Head::Source(_) => Timestamp::MIN,
            Head::Input(gate) => gate.watermark(),
        };
        let mut cuts = Vec::with_capacity(durable.len());
        for vertex in durable {
            let (lists, watermark, keyed) = match vertex.role {
                Role::Source => {
                    let Head::Source(source) = &mut *head else { continue };
                    // A source has no watermark but the one that the strategy behind it makes.
                    let strategy = chain.operators.iter().find(|it| it.operator.replaces_watermarks());
                    let watermark = strategy.map_or(input, |strategy| strategy.watermark);
                    let named = |error: Error| error.context(format!("source {}", vertex.uid));
                    (vec![source.reader.snapshot().map_err(named)?], watermark, false)
                }
                Role::Operator(at) => {
                    let operator = &mut chain.operators[at];
                    let keyed = operator.operator.keyed().is_some();
                    (operator.operator.lists()?, operator.watermark, keyed)
                }
                Role::Sink => {
                    (Vec::new(), chain.operators.last().map_or(input, |last| last.watermark), false)
                }
            };
            cuts.push(Cut {
                position: vertex.position,
                uid: vertex.uid.clone(),
                is_sink: vertex.role == Role::Sink,
                groups: if keyed { *groups } else { KeyGroupRange { start: 0, end: 0 } },
                lists,
                watermark,
                processing_time,
            });
        }
        Ok(cuts)
    }

    /// Drains one slice of cells, if any wait.
    pub(super) fn slice(&mut self) -> Result<()> {
        self.count_waiting();
        if self.undrained == 0 {
            self.refill();
            return Ok(());
        }
        let step = Stopwatch::start(&self.task.env);
        let mut left = 0;
        let Task { chain, durable, id, options, .. } = &mut self.task;
        for (at, keyed) in chain.keyed() {
            left += keyed.drain(options.slice_cells).map_err(|error| {
                let vertex = durable.iter().find(|vertex| vertex.role == Role::Operator(at));
                let operator = vertex.map_or("", |vertex| vertex.uid.as_str());
                error.context(format!("operator {operator}, subtask {}", id.subtask))
            })?;
        }
        self.undrained = left;
        self.refill();
        self.snapshots.on_step(step.stop(&self.task.env));
        Ok(())
    }

    /// Has the background make the memory that draining will need.
    fn refill(&mut self) {
        for (_, keyed) in self.task.chain.keyed() {
            keyed.refills().for_each(|refill| self.task.uploads.refill(refill));
        }
    }

    /// Hands sealed intervals to the background.
    pub(super) fn take_sealed(&mut self) {
        let Task { chain, durable, groups, uploads, .. } = &mut self.task;
        for (at, keyed) in chain.keyed() {
            let Some(vertex) = durable.iter().find(|vertex| vertex.role == Role::Operator(at)) else {
                continue;
            };
            while let Some((checkpoint, delta)) = keyed.take_sealed() {
                let identity =
                    self.snapshots.sealed(vertex.position, checkpoint, Extent::of(&delta, &uploads.policy));
                let Some(identity) = identity else { continue };
                let work =
                    RunToWrite { operator: vertex.position, checkpoint, delta, identity, groups: *groups };
                uploads.write(work, self.uploaded.0.clone());
            }
        }
    }

    pub(super) fn merge(&mut self, completed: CheckpointId) -> Result<()> {
        let Task { uploads, chain, durable, .. } = &mut self.task;
        for work in self.snapshots.begin_merge(completed, |runs| plan_merge(runs, &uploads.policy)) {
            let clocks = if let Some(clocks) = &work.clocks {
                clocks.expiry_clocks()?
            } else {
                let role =
                    durable.iter().find(|vertex| vertex.position == work.position).map(|vertex| &vertex.role);
                let mut keyed = chain.keyed();
                let keyed =
                    keyed.find_map(|(at, keyed)| (role == Some(&Role::Operator(at))).then_some(keyed));
                keyed.and_then(|keyed| keyed.expiry_clocks()).unwrap_or_default()
            };
            uploads.merge(work, clocks, self.uploaded.0.clone());
        }
        Ok(())
    }
}

/// Times one step of snapshot work, by the clock and by the processor.
struct Stopwatch {
    wall: Monotonic,
    cpu: Duration,
}

impl Stopwatch {
    fn start(env: &Env) -> Self {
        Self { wall: env.now(), cpu: env.thread_cpu() }
    }

    fn stop(self, env: &Env) -> StepCost {
        let micros = |span: Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        let cpu_us = micros(env.thread_cpu().saturating_sub(self.cpu));
        StepCost { wall_us: micros(env.now().since(self.wall)), cpu_us }
    }
}
