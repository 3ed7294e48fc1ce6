//! A request of metrics: the same identities, on resources and data points. Metrics are not kept here, so
//! they have no ids.

use super::{
    Context, Entrance, Lane, Limits, Malformed, Tally,
    claims::{self, Way},
    identity::{Asker, Found},
    raw::{Part, Parts},
};
use lease::{BootTime, WallTime};
use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::KeyValue,
    metrics::v1::{
        ExponentialHistogramDataPoint, HistogramDataPoint, NumberDataPoint, ResourceMetrics,
        SummaryDataPoint, metric::Data,
    },
};
use prost::Message as _;
use wire::fields::SERVICE_NAME;

/// What became of a request.
#[derive(Clone, Debug)]
pub struct StampedMetrics {
    pub(super) request: ExportMetricsServiceRequest,
    /// An `ExportMetricsServiceRequest`, encoded.
    pub bytes: Vec<u8>,
    /// What became of its data points.
    pub tally: Tally,
    /// See [`Stamped::ahead`](super::Stamped::ahead).
    pub ahead: Option<BootTime>,
}

/// Stamps an encoded `ExportMetricsServiceRequest`. An error means that nothing of it goes on.
pub fn metrics(request: &[u8], context: Context<'_>) -> Result<StampedMetrics, Malformed> {
    within(request, context.limits)?;
    let mut decoded = ExportMetricsServiceRequest::decode(request)
        .map_err(|_| Malformed("its messages are not those of metrics"))?;
    let mut stamper = Stamper {
        loader: context.entrance == Entrance::Loader,
        received: context.received.wall,
        asker: Asker::new(context),
        tally: Tally::default(),
    };
    for group in &mut decoded.resource_metrics {
        stamper.resource_metrics(group);
    }
    Ok(StampedMetrics {
        bytes: decoded.encode_to_vec(),
        request: decoded,
        tally: stamper.tally,
        ahead: stamper.asker.ahead,
    })
}

/// A data point of any kind.
trait Point {
    fn time(&self) -> u64;
    fn attributes(&mut self) -> &mut Vec<KeyValue>;
    /// They carry ids of traces, which nobody keeps, and attributes of their own. A transform of the collector
    /// cannot reach them.
    fn forget_exemplars(&mut self);
}

macro_rules! points {
    ($($kind:ty: $self:ident => $forget:expr;)+) => {$(
        impl Point for $kind {
            fn time(&self) -> u64 {
                self.time_unix_nano
            }

            fn attributes(&mut self) -> &mut Vec<KeyValue> {
                &mut self.attributes
            }

            fn forget_exemplars(&mut $self) {
                $forget
            }
        }
    )+};
}

points! {
    NumberDataPoint: self => self.exemplars.clear();
    HistogramDataPoint: self => self.exemplars.clear();
    ExponentialHistogramDataPoint: self => self.exemplars.clear();
    SummaryDataPoint: self => ();
}

/// Shows the attributes of every data point.
pub(super) fn each_point(data: &mut Data, mut show: impl FnMut(&mut Vec<KeyValue>)) {
    fn all(points: &mut [impl Point], show: &mut impl FnMut(&mut Vec<KeyValue>)) {
        points.iter_mut().for_each(|point| show(point.attributes()));
    }
    match data {
        Data::Gauge(d) => all(&mut d.data_points, &mut show),
        Data::Sum(d) => all(&mut d.data_points, &mut show),
        Data::Histogram(d) => all(&mut d.data_points, &mut show),
        Data::ExponentialHistogram(d) => all(&mut d.data_points, &mut show),
        Data::Summary(d) => all(&mut d.data_points, &mut show),
    }
}

/// Whose the points of a resource are.
enum Owner<'c> {
    NoPointYet,
    This(Found<'c>),
    /// Several, or nobody.
    Nobody,
}

struct Stamper<'c> {
    loader: bool,
    received: WallTime,
    asker: Asker<'c>,
    tally: Tally,
}

impl<'c> Stamper<'c> {
    fn resource_metrics(&mut self, group: &mut ResourceMetrics) {
        let resource = group.resource.get_or_insert_default();
        if !self.loader {
            resource.entity_refs.clear();
        }
        let attributes = &mut resource.attributes;
        let way = Way::unknown().with(attributes);
        self.clean(attributes);
        if let (false, Some(lane)) = (self.loader, way.lane()) {
            attributes.push(SERVICE_NAME.with(lane.stream()));
        }
        let mut owner = Owner::NoPointYet;
        for scope in &mut group.scope_metrics {
            if let Some(scope) = &mut scope.scope {
                self.clean(&mut scope.attributes);
            }
            for metric in &mut scope.metrics {
                self.clean(&mut metric.metadata);
                match &mut metric.data {
                    Some(Data::Gauge(d)) => self.points(&mut d.data_points, way, &mut owner),
                    Some(Data::Sum(d)) => self.points(&mut d.data_points, way, &mut owner),
                    Some(Data::Histogram(d)) => self.points(&mut d.data_points, way, &mut owner),
                    Some(Data::ExponentialHistogram(d)) => {
                        self.points(&mut d.data_points, way, &mut owner);
                    }
                    Some(Data::Summary(d)) => self.points(&mut d.data_points, way, &mut owner),
                    None => {}
                }
            }
        }
        // Whoever copies it down to the points must not name anybody there who is not named yet.
        if let Owner::This(found) = owner {
            self.asker.set(&mut resource.attributes, found);
        }
    }

    fn points(&mut self, points: &mut [impl Point], way: Way, owner: &mut Owner<'c>) {
        self.tally.points += points.len() as u64;
        if self.loader {
            return;
        }
        for point in points {
            let way = way.with(point.attributes());
            point.forget_exemplars();
            let time = match point.time() {
                0 => self.received,
                time => WallTime(time),
            };
            self.clean(point.attributes());
            let found = match way.lane() {
                Some(Lane::Agents) => {
                    self.asker
                        .who(Lane::Agents, way.peer(), time, &mut self.tally)
                }
                // Their metrics are about themselves.
                Some(Lane::Envoy | Lane::Coredns) => None,
                None => {
                    self.tally.no_lane += 1;
                    None
                }
            };
            *owner = match (&*owner, found) {
                (Owner::NoPointYet, Some(found)) => Owner::This(found),
                (Owner::This(before), Some(found)) if std::ptr::eq(before.lease, found.lease) => {
                    Owner::This(found)
                }
                _ => Owner::Nobody,
            };
            if let Some(found) = found {
                self.asker.set(point.attributes(), found);
            }
        }
    }

    fn clean(&self, attributes: &mut Vec<KeyValue>) {
        if !self.loader {
            claims::strip(attributes);
            claims::strip_source(attributes);
        }
    }
}

/// Kinds of messages in a request that others are in.
#[derive(Clone, Copy)]
enum Kind {
    Request,
    ResourceMetrics,
    Resource,
    ScopeMetrics,
    Scope,
    Metric,
    Numbers,
    Number,
    Histograms,
    Histogram,
    Exponentials,
    Exponential,
    Summaries,
    Summary,
    Exemplar,
    Pair,
    Value,
    Array,
    List,
    Leaf,
}

/// What is in a field of a message, if it is a message.
fn child(kind: Kind, number: u32) -> Option<Kind> {
    use Kind as K;
    Some(match (kind, number) {
        (K::Request, 1) => K::ResourceMetrics,
        (K::ResourceMetrics, 1) => K::Resource,
        (K::ResourceMetrics, 2) => K::ScopeMetrics,
        (K::ScopeMetrics, 1) => K::Scope,
        (K::ScopeMetrics, 2) => K::Metric,
        (K::Metric, 5 | 7) => K::Numbers,
        (K::Metric, 9) => K::Histograms,
        (K::Metric, 10) => K::Exponentials,
        (K::Metric, 11) => K::Summaries,
        (K::Numbers, 1) => K::Number,
        (K::Histograms, 1) => K::Histogram,
        (K::Exponentials, 1) => K::Exponential,
        (K::Summaries, 1) => K::Summary,
        (K::Number, 5) | (K::Histogram, 8) | (K::Exponential, 11) => K::Exemplar,
        (K::Resource | K::Exponential | K::List, 1)
        | (K::Scope, 3)
        | (K::Metric, 12)
        | (K::Number | K::Summary | K::Exemplar, 7)
        | (K::Histogram, 9) => K::Pair,
        (K::Pair, 2) | (K::Array, 1) => K::Value,
        (K::Value, 5) => K::Array,
        (K::Value, 6) => K::List,
        (K::Resource, 3) | (K::Exponential, 8 | 9) | (K::Summary, 6) => K::Leaf,
        _ => return None,
    })
}

/// Whether a request is one that may be built: an empty message takes two bytes in a request and a
/// hundred in memory.
fn within(request: &[u8], limits: &Limits) -> Result<(), Malformed> {
    // Messages around the values of attributes.
    const AROUND: usize = 8;
    let mut left = limits.metric_parts;
    count(Kind::Request, request, AROUND + 2 * limits.depth, &mut left)
}

fn count(kind: Kind, message: &[u8], depth: usize, left: &mut usize) -> Result<(), Malformed> {
    for field in Parts::new(message) {
        let (number, part) = field?;
        if let (Part::Bytes(bytes), Some(kind)) = (part, child(kind, number)) {
            *left = left
                .checked_sub(1)
                .ok_or(Malformed("it has too many parts"))?;
            let deeper = depth
                .checked_sub(1)
                .ok_or(Malformed("it is nested too deep"))?;
            count(kind, bytes, deeper, left)?;
        }
    }
    Ok(())
}
