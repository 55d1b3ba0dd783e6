//! Processing-time timers that are always due take turns with records and barriers.

use tidegate_engine::prelude::*;

use crate::{
    ledger::{Ledger, counted},
    numbers::Numbers,
    world::{Kind, Row, run, simulate, with_settings},
};

const NUMBERS: u64 = 100;

/// Has a timer that is due at any time until all numbers came.
#[derive(Clone, Default)]
struct Restless {
    seen: u64,
    fired: u64,
}

impl ProcessFunction for Restless {
    type Key = u64;
    type In = u64;
    type Out = Row;
    type State = ();

    fn declare(_: &mut Declarations) {}

    fn process(&mut self, number: u64, _: &(), ctx: &mut Context<'_, Self>) -> Result<()> {
        self.seen += 1;
        ctx.emit(Row(Kind::Seen, 0, number));
        let now = ctx.processing_time();
        ctx.timers().register_processing(now)
    }

    fn on_processing_timer(&mut self, _at: Timestamp, _: &(), ctx: &mut Context<'_, Self>) -> Result<()> {
        self.fired += 1;
        if self.fired > 100 * NUMBERS {
            return Err(Error::internal(format!("{} numbers came, the others wait for ever", self.seen)));
        }
        let now = ctx.processing_time();
        if self.seen < NUMBERS { ctx.timers().register_processing(now) } else { Ok(()) }
    }
}

#[test]
fn timers_that_are_always_due_keep_no_record_waiting() {
    for batch in ["1", "10"] {
        let ledger = Ledger::default();
        simulate(async |sim, _env| {
            let settings = [
                ("checkpoints.url", "/checkpoints"),
                ("checkpoints.interval", "10ms"),
                ("batch.records", batch),
                ("restart", "none"),
            ];
            let job = with_settings(Job::new("subject"), &settings).unwrap();
            job.source("numbers", Numbers::new(1, NUMBERS))
                .key_by(|_| 0_u64)
                .process("restless", Restless::default())
                .sink("out", ledger.clone());
            assert_eq!(run(sim, job).await.unwrap().how, "finished");
        });
        let expected = (0..NUMBERS).map(|number| Row(Kind::Seen, 0, number));
        assert_eq!(ledger.committed(), counted(expected), "batches of {batch}");
    }
}
