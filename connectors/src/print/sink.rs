//! [`PrintSink`] and its writer.

use std::{fmt::Display, marker::PhantomData, sync::Arc};

use engine::{
    api::sink::{PlainWriter, Sink, SinkContext},
    record::Batch,
};
use env::Env;
use types::Result;

/// Prints each record on a line of its own. With more than one subtask, or with a label, the line begins with them:
/// `alerts:2> record`, subtasks counted from 1.
///
/// **Guarantee:** at least once. Where standard output cannot be written (its disk is full), the attempt fails, and what no
/// checkpoint holds is printed again; a reader that has gone away (`| head`) does not end the job.
pub struct PrintSink<T> {
    label: Arc<str>,
    records: PhantomData<fn(T)>,
}

impl<T: Display> PrintSink<T> {
    /// Prints records without a label.
    #[must_use]
    pub fn new() -> Self {
        Self::labelled("")
    }

    /// Prints `label` in front of each record.
    #[must_use]
    pub fn labelled(label: &str) -> Self {
        Self { label: label.into(), records: PhantomData }
    }
}

impl<T: Display> Default for PrintSink<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Clone for PrintSink<T> {
    fn clone(&self) -> Self {
        Self { label: Arc::clone(&self.label), records: PhantomData }
    }
}

impl<T: Display + Send + 'static> Sink for PrintSink<T> {
    type In = T;
    type Writer = PrintWriter<T>;

    async fn writer(&self, context: &SinkContext) -> Result<PrintWriter<T>> {
        let number = context.subtask.0 + 1;
        let prefix = match (&*self.label, context.parallelism > 1) {
            ("", false) => String::new(),
            ("", true) => format!("{number}> "),
            (label, false) => format!("{label}> "),
            (label, true) => format!("{label}:{number}> "),
        };
        Ok(PrintWriter { env: context.env.clone(), prefix, records: PhantomData })
    }
}

/// Prints the records of one subtask.
pub struct PrintWriter<T> {
    env: Env,
    prefix: String,
    records: PhantomData<fn(T)>,
}

impl<T: Display + Send + 'static> PlainWriter for PrintWriter<T> {
    type In = T;

    async fn write(&mut self, mut batch: Batch<T>) -> Result<()> {
        while let Some(record) = batch.next() {
            self.env.print(&format!("{}{}", self.prefix, record.value))?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        // Each line went out whole.
        Ok(())
    }
}
