//! The loader's warnings as records.

use tracing_subscriber::{layer::SubscriberExt as _, registry, util::SubscriberInitExt as _};
use wire::{Outlet, Volume, log_layer};

/// Crates whose warnings are told: those of this house that run in the loader.
pub const CRATES: &[&str] = &["ebpf_manager", "lease", "policy", "wire"];

/// From now on warnings of this process are taken, and come out here. Nothing if something else takes
/// them already.
#[must_use]
pub fn listen() -> Option<Outlet> {
    let (layer, outlet) = log_layer::layer(CRATES, Volume::default());
    let set = registry().with(layer).try_init();
    set.is_ok().then_some(outlet)
}
