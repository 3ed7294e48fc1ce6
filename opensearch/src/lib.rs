//! What the monitor needs in OpenSearch and Dashboards, and how it gets there: templates that keep every
//! record, data streams, retention, roles, saved objects.

pub mod access;
pub mod answer;
pub mod boards;
pub mod bodies;
pub mod check;
pub mod cli;
pub mod client;
pub mod fields;
pub mod report;
pub mod run;
pub mod store;
pub mod streams;
pub mod wait;
