//! The real parts of the monitor stack, started for one test each.
