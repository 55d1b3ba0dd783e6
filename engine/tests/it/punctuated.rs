//! Watermarks that records carry, through a whole job: each comes behind its record and before the next one.

use std::time::Duration;

use tidegate_engine::prelude::*;

use crate::{
    ledger::{Ledger, counted},
    numbers::Numbers,
    world::{Kind, Row, run, simulate, with_settings},
};

const NUMBERS: u64 = 100;

/// Says of each number how many watermarks came before it.
#[derive(Clone)]
struct WatermarksSeen;

impl ProcessFunction for WatermarksSeen {
    type Key = ();
    type In = u64;
    type Out = Row;
    type State = ();

    fn declare(_: &mut Declarations) {}

    fn process(&mut self, number: u64, _: &(), ctx: &mut Context<'_, Self>) -> Result<()> {
        let seen = ctx.watermark().0.max(-1) + 1;
        ctx.emit(Row(Kind::Seen, number, seen.try_into().expect("it is 0 or more")));
        Ok(())
    }
}

#[test]
fn a_punctuated_watermark_comes_behind_the_record_that_carries_it() {
    // Records come alone, and many in one batch.
    for at_once in [1, 10] {
        let ledger = Ledger::default();
        simulate(async |sim, _env| {
            let settings = [("checkpoints.url", "/checkpoints")];
            let job = with_settings(Job::new("subject"), &settings).unwrap();
            let each = WatermarkStrategy::punctuated(|&number: &u64| Some(Timestamp(number as i64)));
            job.source("numbers", Numbers::new(1, NUMBERS).paced(at_once, Duration::from_millis(10)))
                .watermarks(each)
                .process("seen", WatermarksSeen)
                .sink("out", ledger.clone());
            assert_eq!(run(sim, job).await.unwrap().how, "finished");
        });
        let expected = (0..NUMBERS).map(|number| Row(Kind::Seen, number, number));
        assert_eq!(ledger.committed(), counted(expected), "{at_once} at once");
    }
}
