//! The policy language: one YAML file, read and checked here, for the kernel side, the proxy and the
//! resolver alike.
//!
//! ```text
//! source ──parse──▶ Policy ──select──▶ Selected ──compile──▶ Compiled (what the maps hold)
//!            │                            └──────decide────▶ Verdict  (what the rules say)
//!            └────▶ diagnostics ──render──▶ text
//! ```
//!
//! Pure: no files, no sockets, no clock. [`Policy::parse`] reports every mistake at once and is the
//! only way to make a policy from text. The tests hold [`Selected::compile`] against
//! [`Selected::decide`], which knows nothing of tries.
#![forbid(unsafe_code)]

mod builtin;
mod cases;
mod check;
mod compile;
mod cover;
mod decide;
mod destination;
mod diagnostic;
mod document;
mod fields;
mod keys;
mod limits;
mod paths;
mod policy;
mod render;
mod rule;
mod rule_reader;
mod select;
mod shadow;
mod suggest;
mod values;
mod yaml;

pub use builtin::{BUILTIN, is_private};
pub use compile::{CompileError, Compiled, MAX_COVERING};
pub use decide::{Question, Reason, Verdict};
pub use destination::{Destination, DestinationError, Name, judged};
pub use diagnostic::{Diagnostic, Severity, summary};
pub use policy::{Case, Mode, Parsed, Policy, Resolver};
pub use render::render;
pub use rule::{Action, PathMatch, PathRule, PortRange, Proto, Rule};
pub use select::Selected;
pub use suggest::suggest;
pub use yaml::MAX_SOURCE;
