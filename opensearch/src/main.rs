//! `provision`: prepares OpenSearch and Dashboards for the monitor's data streams.
fn main() {}
