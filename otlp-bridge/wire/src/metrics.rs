//! Metrics of the programs themselves: the dictionary of their names, and a snapshot of their values as
//! one OTLP request. A handful of numbers that are read off where they are counted anyway needs no
//! registry of instruments, no readers and no threads.
//!
//! Sums are cumulative: since `start`, which is when the program started, and they never fall. Labels
//! have few values, all from closed lists: nothing that an agent could choose is one.

mod dictionary;

use crate::{batch::Payload, record::nanos, stream::Source};
pub use dictionary::*;
use jiff::Timestamp;
use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value},
    metrics::v1::{
        AggregationTemporality, Gauge as GaugeData, Metric as MetricData, NumberDataPoint,
        ResourceMetrics, ScopeMetrics, Sum, metric::Data, number_data_point,
    },
};
use prost::Message as _;
use std::marker::PhantomData;

/// Kind of a metric.
pub trait Kind {
    /// The kind's name in the documentation.
    const NAME: &'static str;

    /// Values of this kind.
    fn data(points: Vec<NumberDataPoint>) -> Data;
}

/// A number that only grows.
#[derive(Clone, Copy, Debug)]
pub enum Counter {}

impl Kind for Counter {
    const NAME: &'static str = "sum";

    fn data(data_points: Vec<NumberDataPoint>) -> Data {
        Data::Sum(Sum {
            data_points,
            aggregation_temporality: AggregationTemporality::Cumulative.into(),
            is_monotonic: true,
        })
    }
}

/// A number that is what it is now.
#[derive(Clone, Copy, Debug)]
pub enum Gauge {}

impl Kind for Gauge {
    const NAME: &'static str = "gauge";

    fn data(data_points: Vec<NumberDataPoint>) -> Data {
        Data::Gauge(GaugeData { data_points })
    }
}

/// A metric with `N` labels: its kind and the number of its labels are part of its type.
#[derive(Debug)]
pub struct Metric<K, const N: usize> {
    /// Its name.
    pub name: &'static str,
    /// Its unit (UCUM).
    pub unit: &'static str,
    /// Names of its labels.
    pub labels: [&'static str; N],
    meaning: &'static str,
    kind: PhantomData<K>,
}

impl<K, const N: usize> Clone for Metric<K, N> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, const N: usize> Copy for Metric<K, N> {}

/// A line of the dictionary.
#[derive(Debug)]
pub struct Entry {
    /// Which program has it.
    pub program: &'static str,
    /// Its name.
    pub name: &'static str,
    /// What its values are.
    pub kind: &'static str,
    /// Its unit (UCUM).
    pub unit: &'static str,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// What it means.
    pub meaning: &'static str,
}

impl Entry {
    /// Its name in Prometheus, as the collector's exporter makes it: unit and kind are suffixes, units
    /// in braces are none.
    #[must_use]
    pub fn prometheus(&self) -> String {
        let unit = match self.unit {
            "By" => "_bytes",
            "s" => "_seconds",
            _ => "",
        };
        let total = if self.kind == Counter::NAME {
            "_total"
        } else {
            ""
        };
        format!("{}{unit}{total}", self.name.replace('.', "_"))
    }
}

/// What a program has to say at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    source: Source,
    start: u64,
    now: u64,
    metrics: Vec<MetricData>,
}

impl Snapshot {
    /// An empty one, of `now`; sums count since `start`.
    #[must_use]
    pub fn new(source: &Source, start: Timestamp, now: Timestamp) -> Self {
        Self {
            source: source.clone(),
            start: nanos(start),
            now: nanos(now),
            metrics: Vec::new(),
        }
    }

    /// Sets a value under the values of the metric's labels, in place of an earlier one if there is one.
    /// What does not fit into 63 bits is sent as the largest that does.
    pub fn set<K: Kind, const N: usize>(
        &mut self,
        metric: Metric<K, N>,
        labels: [&str; N],
        value: u64,
    ) {
        let label = |(key, value): (&str, &str)| KeyValue {
            key: key.to_owned(),
            value: Some(AnyValue {
                value: Some(any_value::Value::StringValue(value.to_owned())),
            }),
            ..KeyValue::default()
        };
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        let point = NumberDataPoint {
            attributes: metric.labels.into_iter().zip(labels).map(label).collect(),
            start_time_unix_nano: self.start,
            time_unix_nano: self.now,
            value: Some(number_data_point::Value::AsInt(value)),
            ..NumberDataPoint::default()
        };
        let points = self.points(metric);
        let same = |p: &&mut NumberDataPoint| p.attributes == point.attributes;
        match points.iter_mut().find(same) {
            Some(old) => *old = point,
            None => points.push(point),
        }
    }

    /// The points of a metric so far.
    fn points<K: Kind, const N: usize>(
        &mut self,
        metric: Metric<K, N>,
    ) -> &mut Vec<NumberDataPoint> {
        let found = self.metrics.iter().position(|m| m.name == metric.name);
        let at = found.unwrap_or_else(|| {
            self.metrics.push(MetricData {
                name: metric.name.to_owned(),
                description: metric.meaning.trim().to_owned(),
                unit: metric.unit.to_owned(),
                data: Some(K::data(Vec::new())),
                ..MetricData::default()
            });
            self.metrics.len() - 1
        });
        match self.metrics[at].data.get_or_insert(K::data(Vec::new())) {
            Data::Sum(sum) => &mut sum.data_points,
            Data::Gauge(gauge) => &mut gauge.data_points,
            Data::Histogram(_) | Data::ExponentialHistogram(_) | Data::Summary(_) => {
                unreachable!("no kind of ours makes these")
            }
        }
    }

    /// The request.
    #[must_use]
    pub fn request(self) -> ExportMetricsServiceRequest {
        ExportMetricsServiceRequest {
            resource_metrics: vec![ResourceMetrics {
                resource: Some(self.source.resource),
                scope_metrics: vec![ScopeMetrics {
                    scope: Some(self.source.scope),
                    metrics: self.metrics,
                    schema_url: String::new(),
                }],
                schema_url: String::new(),
            }],
        }
    }

    /// The request, encoded, for a client of [`crate::Endpoint::for_metrics`]. Its records are metrics.
    #[must_use]
    pub fn payload(self) -> Payload {
        let records = self.metrics.len() as u64;
        Payload {
            bytes: self.request().encode_to_vec().into(),
            records,
        }
    }
}

#[cfg(test)]
mod tests;
