//! The real parts of the monitor stack, started for one test each.

pub mod bridge;
pub mod chain;
pub mod claude;
pub mod collector;
pub mod compose;
pub mod coredns;
pub mod demo;
pub mod dns;
pub mod envoy;
pub mod greeting;
pub mod grpc;
pub mod http1;
pub mod http2;
pub mod images;
pub mod inside;
pub mod opensearch;
pub mod origin;
pub mod panels;
pub mod program;
pub mod prometheus;
pub mod provisioner;
pub mod send;
pub mod standin;
