//! An engine of the tests' own, and labelled containers in it.
