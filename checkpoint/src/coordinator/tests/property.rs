//! Whatever happens in whatever order, what the coordinator guarantees holds.

use proptest::prelude::*;

use super::*;

/// The world around a coordinator, answering at random, and what must be true of what it is told.
struct World {
    coordinator: Coordinator,
    settings: Settings,
    now: Monotonic,
    newest: u64,
    /// Triggered and neither given up nor in the history.
    pending: BTreeSet<u64>,
    manifests: Vec<u64>,
    record: Option<Record>,
    recorded: u64,
    confirmable: Vec<u64>,
    /// The newest checkpoint that the sink has committed.
    committed: u64,
    copies: Vec<(u64, String)>,
    open: BTreeSet<u64>,
    requests: u64,
    /// The checkpoint of a stop or finish that was not given up.
    last: Option<u64>,
    over: bool,
    /// The last step triggered a checkpoint.
    injected: bool,
    /// The way to the end so far.
    course: Course,
    /// Those requests that are stops.
    stops: BTreeSet<u64>,
    /// What those who wait for the end were told it was.
    told_end: Option<End>,
    /// A stop was told that the job was cancelled.
    told_cancelled: bool,
}

impl World {
    fn new(settings: Settings) -> Self {
        Self {
            coordinator: Coordinator::new(settings.clone(), plan(), id(0)),
            settings,
            now: at(0),
            newest: 0,
            pending: BTreeSet::new(),
            manifests: Vec::new(),
            record: None,
            recorded: 0,
            confirmable: Vec::new(),
            committed: 0,
            copies: Vec::new(),
            open: BTreeSet::new(),
            requests: 0,
            last: None,
            over: false,
            injected: false,
            course: Course::Running,
            stops: BTreeSet::new(),
            told_end: None,
            told_cancelled: false,
        }
    }

    fn request(&mut self) -> u64 {
        self.requests += 1;
        self.open.insert(self.requests);
        self.requests
    }

    /// An event that may happen now, chosen by two numbers.
    fn event(&mut self, what: u8, which: u8) -> Event {
        let which = usize::from(which);
        let pick = |len: usize| which % len;
        let checkpoint = self.newest.saturating_sub(which as u64 / 3 % 3);
        let task = [source(0), source(1), sink()][which % 3];
        match what {
            0 => trigger(self.request()),
            1 => savepoint(self.request(), ["a", "b"][which % 2]),
            2 if which < 16 => {
                let request = self.request();
                self.stops.insert(request);
                stop(request, which % 2 == 0, [None, Some("a")][which / 2 % 2])
            }
            3 if which < 8 => Event::Cancel { request: RequestId(self.request()) },
            4 if which < 64 => report(source(which as u32 % 2), TaskReport::SourceFinished),
            5 => declined(checkpoint),
            6 => {
                let ahead = Duration::from_secs(which as u64 / 8);
                self.now = self.now + ahead;
                Event::TimePassed
            }
            7 if which < 4 => job_failed("a task died"),
            8..=9 if !self.manifests.is_empty() => {
                let checkpoint = self.manifests.remove(pick(self.manifests.len()));
                if which % 8 == 0 {
                    let error = Error::unavailable("disk full");
                    return Event::ManifestFailed { checkpoint: id(checkpoint), error };
                }
                written(checkpoint)
            }
            10..=12 if self.record.is_some() => {
                let record = self.record.take();
                if which % 16 == 0 {
                    return record_failed([ErrorKind::Unavailable, ErrorKind::Retryable][which / 128]);
                }
                if let Some(Record::Completed { checkpoint, .. }) = record {
                    self.recorded = checkpoint.0;
                    self.pending.remove(&checkpoint.0);
                }
                Event::Recorded
            }
            13 if !self.confirmable.is_empty() => {
                let checkpoint = self.confirmable.remove(pick(self.confirmable.len()));
                self.committed = self.committed.max(checkpoint);
                committed(checkpoint)
            }
            14 if !self.copies.is_empty() => {
                let (checkpoint, dir) = self.copies.remove(pick(self.copies.len()));
                match which % 4 {
                    0 => copy_failed(checkpoint, &dir, ErrorKind::Retryable),
                    1 => copy_failed(checkpoint, &dir, ErrorKind::Conflict),
                    _ => copied(checkpoint, &dir),
                }
            }
            15 => report(task, TaskReport::Injected { checkpoint: id(checkpoint) }),
            _ => acked(task, checkpoint, 1),
        }
    }

    fn step(&mut self, event: Event) -> Result<(), TestCaseError> {
        let text = format!("{event:?}");
        let was_over = self.over;
        let failed = matches!(event, Event::JobFailed { .. });
        let decisions = self.coordinator.step(self.now, event);
        self.injected = decisions.iter().any(|decision| matches!(decision, Decision::Inject(_)));
        for decision in &decisions {
            self.check(decision).map_err(|broken| {
                TestCaseError::fail(format!("{broken}: {} after {text}", words(decision)))
            })?;
            let answer = matches!(decision, Decision::Answer { .. });
            prop_assert!(!was_over || answer, "{} after the end", words(decision));
        }
        self.over |= failed;
        if self.over {
            prop_assert_eq!(self.coordinator.next_wakeup(), None);
            prop_assert_eq!(self.coordinator.course(), None);
        } else {
            let course = self.coordinator.course().expect("it is not over");
            prop_assert!(course >= self.course, "{course:?} follows {:?} after {text}", self.course);
            let end_recorded = self.last.is_some_and(|last| last == self.recorded);
            prop_assert!(!end_recorded || course >= Course::Finishing, "{course:?} after {text}");
            self.course = course;
            prop_assert!(self.pending.len() <= self.settings.max_concurrent as usize);
            let wakeup = self.coordinator.next_wakeup();
            prop_assert!(wakeup.is_none_or(|at| at > self.now), "wakes up at once, after {text}");
        }
        let capture = decisions.iter().find_map(|decision| match decision {
            Decision::Inject(barrier) => Some(captured(barrier.checkpoint.0)),
            _ => None,
        });
        capture.map_or(Ok(()), |captured| self.step(captured))
    }

    fn check(&mut self, decision: &Decision) -> Result<(), &'static str> {
        let must = |holds: bool, what: &'static str| if holds { Ok(()) } else { Err(what) };
        match decision {
            Decision::Inject(barrier) => {
                must(barrier.checkpoint.0 == self.newest + 1, "numbers grow by one")?;
                must(self.last.is_none(), "none after that of the end")?;
                self.newest += 1;
                self.pending.insert(self.newest);
                if matches!(barrier.kind, BarrierKind::Stop { .. } | BarrierKind::Last) {
                    self.last = Some(self.newest);
                }
                Ok(())
            }
            Decision::CancelCheckpoint { checkpoint } => {
                let in_flight = matches!(&self.record, Some(Record::Completed { checkpoint: of, .. }) if of == checkpoint);
                must(!in_flight, "its record may hold")?;
                if self.last == Some(checkpoint.0) {
                    self.last = None;
                }
                must(self.pending.remove(&checkpoint.0), "only what is pending is given up")
            }
            Decision::WriteManifest(manifest) => {
                let oldest = self.pending.first().copied();
                self.manifests.push(manifest.checkpoint.0);
                must(oldest == Some(manifest.checkpoint.0), "a newer one waits for the older")
            }
            Decision::Record(record) => {
                must(self.record.is_none(), "one record at a time")?;
                self.record = Some(record.clone());
                match record {
                    Record::Completed { checkpoint, .. } => {
                        must(checkpoint.0 > self.recorded, "records in checkpoint order")?;
                        must(self.pending.contains(&checkpoint.0), "only what is pending is recorded")
                    }
                    Record::Confirmed { checkpoint } => {
                        must(checkpoint.0 <= self.recorded, "confirmed after recorded")
                    }
                    Record::Savepoint { .. } => Ok(()),
                    Record::Ended(End::Cancelled) => Ok(()),
                    Record::Ended(_) => must(self.last == Some(self.recorded), "an end has its checkpoint"),
                }
            }
            Decision::Commit { checkpoint } => {
                self.confirmable.push(checkpoint.0);
                must(checkpoint.0 == self.recorded, "a commit needs its record")
            }
            Decision::CopySavepoint { checkpoint, dir } => {
                self.copies.push((checkpoint.0, dir.clone()));
                must(checkpoint.0 <= self.committed, "a savepoint waits for the sinks")
            }
            Decision::Answer { request, result } => {
                if let Ok(Answer::Ended { end, .. }) = result {
                    self.told_end = Some(*end);
                }
                let refused = matches!(result, Err(error) if error.message() == "the job was cancelled");
                self.told_cancelled |= refused && self.stops.contains(&request.0);
                must(self.open.remove(&request.0), "one answer to each request")
            }
            Decision::Finish(end) => {
                must(self.told_end.is_none_or(|told| told == *end), "all are told the end that it was")?;
                must(
                    *end == End::Cancelled || !self.told_cancelled,
                    "no stop is told of a cancellation that was none",
                )?;
                must(!std::mem::replace(&mut self.over, true), "over once")
            }
            Decision::FailJob { .. } | Decision::Restart { .. } => {
                must(!std::mem::replace(&mut self.over, true), "over once")
            }
            // A checkpoint triggered in the same step holds them back again.
            Decision::ReleaseAssignments { task } => {
                must(self.coordinator.may_assign(*task) || self.injected, "released and held")
            }
            Decision::Collect { .. } | Decision::Alert { .. } => Ok(()),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_guarantees_hold_in_every_order(
        max_concurrent in 1_u32..4,
        interval in prop::option::of(1_u64..20),
        min_pause in 0_u64..10,
        events in prop::collection::vec((0_u8..24, any::<u8>()), 150),
    ) {
        let mut world = World::new(Settings {
            interval: interval.map(Duration::from_secs),
            min_pause: Duration::from_secs(min_pause),
            timeout: 30 * SECOND,
            max_concurrent,
            ..Settings::default()
        });
        world.step(Event::TasksRunning)?;
        for (what, which) in events {
            let event = world.event(what, which);
            world.step(event)?;
        }
        world.step(job_failed("the test is over"))?;
        // A stop that is in the history is answered by the next attempt.
        let kept = world.coordinator.remaining().and_then(|remaining| remaining.stop);
        let kept: BTreeSet<_> = kept.map(|stop| stop.request.0).into_iter().collect();
        prop_assert_eq!(world.open, kept);
    }
}
