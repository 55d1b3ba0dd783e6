//! The keyed operator with one value of state: `fold`, `reduce`, `sum`, `min`, `map_with_state` and their like, made by
//! `KeyedStream`. All are one function over (state, record); the table is looked up once per batch.

use std::{marker::PhantomData, sync::Arc};

use statebackend::{Declared, KeyRef, KeyedState, StateDeclarations, ValueState};
use types::Result;

use super::{
    cancellation::Cancellation,
    operator::{Emitted, Operator, RuntimeContext},
};
use crate::{
    api::{
        data::{Data, Key},
        function::Collector,
    },
    record::{AnyBatch, BatchBuilder},
};

/// How many records' state is fetched ahead: few enough to stay in the nearest cache until they are used.
const BLOCK: usize = 256;
/// The name of the one state.
const STATE: &str = "value";

/// Declares the one state of such an operator.
///
/// # Errors
/// `InvalidJob` if `K` cannot be a key or `S` cannot be state.
pub(crate) fn declare<K: Key, S: Data>() -> Result<(Declared, ValueState<S>)> {
    let mut states = StateDeclarations::new();
    states.key::<K>();
    let value = states.value(STATE);
    Ok((states.finish()?, value))
}

pub(crate) struct Update<In, Out, S, F> {
    update: Arc<F>,
    keyed: KeyedState,
    value: ValueState<S>,
    out: BatchBuilder<Out>,
    batch_records: usize,
    cancellation: Cancellation,
    types: PhantomData<fn(In)>,
}

impl<In, Out, S, F> Update<In, Out, S, F> {
    pub(crate) fn new(
        update: Arc<F>,
        declared: Declared,
        value: ValueState<S>,
        context: &RuntimeContext,
    ) -> Self {
        Self {
            update,
            keyed: KeyedState::new(declared, context.groups, context.first_checkpoint),
            value,
            out: BatchBuilder::default(),
            batch_records: context.batch_records,
            cancellation: context.cancellation.clone(),
            types: PhantomData,
        }
    }
}

impl<In, Out, S, F> Operator for Update<In, Out, S, F>
where
    In: Data,
    Out: Data,
    S: Data,
    F: Fn(&mut Option<S>, In, KeyRef<'_>, &mut Collector<'_, Out>) -> Result<()> + Send + Sync,
{
    fn process(&mut self, batch: &mut dyn AnyBatch) -> Result<Emitted> {
        let batch = batch.typed::<In>();
        self.keyed.prepare(batch.keys())?;
        let table = self.keyed.value_table(self.value);
        self.out.reserve(batch.len().min(self.batch_records));
        while !batch.is_empty() && self.out.len() < self.batch_records {
            let block = batch.len().min(BLOCK);
            table.warm(batch.places().take(block));
            for _ in 0..block {
                if self.out.len() >= self.batch_records {
                    break;
                }
                let Some(record) = batch.next() else { break };
                self.cancellation.check()?;
                let key = record.key();
                let mut out = Collector::new(&mut self.out, record.time);
                table.update(key, |state| (self.update)(state, record.value, key, &mut out))?;
            }
        }
        Ok(Emitted::records(&mut self.out))
    }

    fn keyed(&mut self) -> Option<&mut KeyedState> {
        Some(&mut self.keyed)
    }
}
