//! What must hold for every policy and every request, tried on random ones: the rendered routes, walked as
//! Envoy walks them, decide as the policy does; and so do the rendered zones.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod names;
mod random;
mod requests;
mod walk;
