//! The stack tier.

mod config;
mod delivery;
mod gate;
mod lanes;
mod opensearch;
