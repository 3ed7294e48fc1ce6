//! The stack tier.

mod boards;
mod compose;
mod config;
mod coredns;
mod delivery;
mod envoy;
mod evasion;
mod gate;
mod joined;
mod lanes;
mod metrics;
mod opensearch;
mod outages;
mod provision;
mod records;
mod roles;
