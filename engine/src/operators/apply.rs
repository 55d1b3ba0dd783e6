//! The stateless operator: `map`, `filter`, `flat_map` and rich functions, made by the streams of `api`.
//! Emits as it takes: a batch in is about a batch out, unless one record becomes many.

use types::Result;

use super::{
    cancellation::Cancellation,
    operator::{Emitted, Operator, RuntimeContext},
};
use crate::{
    api::function::{Collector, RichFunction},
    record::{AnyBatch, BatchBuilder},
};

pub(crate) struct Apply<F: RichFunction> {
    function: F,
    out: BatchBuilder<F::Out>,
    batch_records: usize,
    cancellation: Cancellation,
}

impl<F: RichFunction> Apply<F> {
    pub(crate) fn new(function: F, context: &RuntimeContext) -> Self {
        let cancellation = context.cancellation.clone();
        Self { function, out: BatchBuilder::default(), batch_records: context.batch_records, cancellation }
    }
}

impl<F: RichFunction> Operator for Apply<F> {
    fn open(&mut self, context: &RuntimeContext) -> Result<()> {
        self.function.open(context)
    }

    fn process(&mut self, batch: &mut dyn AnyBatch) -> Result<Emitted> {
        let batch = batch.typed::<F::In>();
        self.out.reserve(batch.len().min(self.batch_records));
        while self.out.len() < self.batch_records
            && let Some(record) = batch.next()
        {
            self.cancellation.check()?;
            self.function.call(record.value, &mut Collector::new(&mut self.out, record.time))?;
        }
        Ok(Emitted::records(&mut self.out))
    }

    fn close(&mut self) -> Result<()> {
        self.function.close()
    }
}
