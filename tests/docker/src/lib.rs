//! An engine of the tests' own, and labelled containers in it.
//!
//! Every test has an engine to itself: one answers 0.6 s after it was started and takes the image in
//! half a second more, which is less than tests that share one would spend on waiting for each other,
//! and a firewall beside it has no agents but the test's. A test runs in a process of its own
//! (cargo-nextest), whose thread moves into the engine's namespaces: what the test starts, the real
//! binaries included, sees the engine's network, cgroups and `/run`, and pins where the machine pins.

pub mod api;
pub mod chaos;
pub mod container;
pub mod engine;
pub mod hear;
pub mod image;
pub mod sink;
pub mod stack;
pub mod world;
