//! The one registry of a process, and the part of it that an operator instance writes to.
//!
//! Invariant: the page is the same text for the same numbers, so label sets are kept in order.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder, text},
    metrics::{MetricType, TypedMetric, counter::Counter, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use types::SubtaskIndex;

type Labels = Vec<(String, String)>;

/// All metrics of a process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Mutex<Registered>>);

#[derive(Debug)]
struct Registered {
    registry: Registry,
    counters: BTreeMap<String, Family<Counter>>,
    gauges: BTreeMap<String, Family<Gauge>>,
    histograms: BTreeMap<String, Family<Histogram>>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Registered {
            registry: Registry::with_prefix("tidegate"),
            counters: BTreeMap::new(),
            gauges: BTreeMap::new(),
            histograms: BTreeMap::new(),
        })))
    }
}

impl Metrics {
    /// The counter `name` with these labels, made at the first call.
    #[must_use]
    pub fn counter(&self, name: &str, help: &str, labels: &[(&str, &str)]) -> Counter {
        let Registered { registry, counters, .. } = &mut *self.lock();
        family(registry, counters, name, help).get(labels, Counter::default)
    }

    /// The gauge `name` with these labels, made at the first call.
    #[must_use]
    pub fn gauge(&self, name: &str, help: &str, labels: &[(&str, &str)]) -> Gauge {
        let Registered { registry, gauges, .. } = &mut *self.lock();
        family(registry, gauges, name, help).get(labels, Gauge::default)
    }

    /// The histogram `name` with these labels, made at the first call with these upper bounds of its buckets.
    #[must_use]
    pub fn histogram(&self, name: &str, help: &str, labels: &[(&str, &str)], bounds: &[f64]) -> Histogram {
        let Registered { registry, histograms, .. } = &mut *self.lock();
        family(registry, histograms, name, help).get(labels, || Histogram::new(bounds.iter().copied()))
    }

    /// What an instance of an operator writes to.
    #[must_use]
    pub fn operator(&self, operator: &str, subtask: SubtaskIndex) -> OperatorMetrics {
        let subtask = subtask.to_string();
        let labels = [("operator", operator), ("subtask", &subtask)];
        OperatorMetrics {
            records_in: self.counter("operator_records_in", "Records taken", &labels),
            records_out: self.counter("operator_records_out", "Records emitted", &labels),
            metrics: self.clone(),
            operator: operator.into(),
            subtask: subtask.into(),
        }
    }

    /// The page, in the OpenMetrics text format.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut page = String::new();
        text::encode(&mut page, &self.lock().registry).expect("writing into a string cannot fail");
        page
    }

    fn lock(&self) -> MutexGuard<'_, Registered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The metrics of one operator instance: those that every operator has, and its function's own. Cheap to clone.
#[derive(Clone, Debug)]
pub struct OperatorMetrics {
    metrics: Metrics,
    operator: Arc<str>,
    subtask: Arc<str>,
    records_in: Counter,
    records_out: Counter,
}

impl OperatorMetrics {
    /// Notes records taken.
    pub(crate) fn records_in(&self, records: u64) {
        self.records_in.inc_by(records);
    }

    /// Notes records emitted.
    pub(crate) fn records_out(&self, records: u64) {
        self.records_out.inc_by(records);
    }

    /// A counter of the function's own, shown as `tidegate_user_NAME_total`. Get it in `open` and keep it.
    #[must_use]
    pub fn counter(&self, name: &str, help: &str) -> Counter {
        self.metrics.counter(&user(name), help, &self.labels())
    }

    /// A gauge of the function's own, shown as `tidegate_user_NAME`. Get it in `open` and keep it.
    #[must_use]
    pub fn gauge(&self, name: &str, help: &str) -> Gauge {
        self.metrics.gauge(&user(name), help, &self.labels())
    }

    /// A histogram of the function's own, shown as `tidegate_user_NAME`, with these upper bounds of its buckets. Get it
    /// in `open` and keep it.
    #[must_use]
    pub fn histogram(&self, name: &str, help: &str, bounds: &[f64]) -> Histogram {
        self.metrics.histogram(&user(name), help, &self.labels(), bounds)
    }

    fn labels(&self) -> [(&str, &str); 2] {
        [("operator", &self.operator), ("subtask", &self.subtask)]
    }
}

/// The name under which a user's metric is shown: Prometheus allows letters, digits and underscores.
fn user(name: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    format!("user_{}", name.chars().map(allowed).collect::<String>())
}

/// Finds a family or registers it.
fn family<M>(
    registry: &mut Registry,
    families: &mut BTreeMap<String, Family<M>>,
    name: &str,
    help: &str,
) -> Family<M>
where
    Family<M>: prometheus_client::registry::Metric,
{
    let family = families.entry(name.to_owned()).or_insert_with(|| {
        let family = Family(Arc::default());
        registry.register(name, help, family.clone());
        family
    });
    family.clone()
}

/// The metrics of one name, by their labels, in order.
#[derive(Debug)]
struct Family<M>(Arc<Mutex<BTreeMap<Labels, M>>>);

impl<M> Clone for Family<M> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<M: Clone> Family<M> {
    fn get(&self, labels: &[(&str, &str)], make: impl FnOnce() -> M) -> M {
        let labels = labels.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(labels).or_insert_with(make).clone()
    }
}

impl<M: EncodeMetric + TypedMetric> EncodeMetric for Family<M> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for (labels, metric) in &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            metric.encode(encoder.encode_family(labels)?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        M::TYPE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_ordered_and_names_operator_and_subtask() {
        let metrics = Metrics::default();
        for (operator, subtask) in [("words", 1), ("words", 0), ("lines", 0)] {
            let metrics = metrics.operator(operator, SubtaskIndex(subtask));
            metrics.records_in(3);
            metrics.counter("refused-lines", "Lines refused").inc();
        }
        let page = metrics.encode();
        let in_order = "# HELP tidegate_operator_records_in Records taken.\n\
            # TYPE tidegate_operator_records_in counter\n\
            tidegate_operator_records_in_total{operator=\"lines\",subtask=\"0\"} 3\n\
            tidegate_operator_records_in_total{operator=\"words\",subtask=\"0\"} 3\n\
            tidegate_operator_records_in_total{operator=\"words\",subtask=\"1\"} 3\n";
        assert!(page.contains(in_order), "{page}");
        assert!(
            page.contains("tidegate_user_refused_lines_total{operator=\"words\",subtask=\"1\"} 1\n"),
            "{page}"
        );
    }

    #[test]
    fn the_same_name_and_labels_are_the_same_metric() {
        let metrics = Metrics::default();
        metrics.operator("words", SubtaskIndex(0)).gauge("depth", "Depth").set(4);
        assert_eq!(metrics.operator("words", SubtaskIndex(0)).gauge("depth", "Depth").get(), 4);
    }
}
