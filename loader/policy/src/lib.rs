//! The policy language: one YAML file, read and checked here, for the kernel side, the proxy and the
//! resolver alike.
//!
//! ```text
//! source ──parse──▶ Policy ──select──▶ Selected ──compile──▶ Compiled (what the maps hold)
//!            │          │                 └──────decide────▶ Verdict  (what the rules say)
//!            │          └──explain──▶ Explanation (the verdict, and why other rules lost)
//!            └────▶ diagnostics ──render──▶ text
//!
//! records ──▶ Observation ──learn──▶ Learned ──▶ source
//! record of a denied flow ──suggest──▶ Suggestion (one rule)
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
mod explain;
mod fields;
mod keys;
mod learn;
mod limits;
mod line;
mod paths;
mod policy;
mod render;
mod rule;
mod rule_reader;
mod select;
mod shadow;
mod suggest;
mod target;
mod values;
mod yaml;

pub use builtin::{BUILTIN, is_private};
pub use compile::{CompileError, Compiled, MAX_COVERING};
pub use decide::{Mismatch, Question, Reason, Verdict};
pub use destination::{Destination, DestinationError, Name, judged};
pub use diagnostic::{Diagnostic, Severity, summary};
pub use explain::{Effect, Explanation, Lost, PathVerdict, Why};
pub use learn::{Base, Form, LearnError, Learned, Learner, Observation, Outcome};
pub use paths::{PathMismatch, Request, RequestError};
pub use policy::{Case, Mode, Parsed, Policy, Resolver};
pub use render::render;
pub use rule::{Action, PathMatch, PathRule, PortRange, Proto, Rule};
pub use select::Selected;
pub use suggest::{NoRule, Refused, Suggestion};
pub use target::{TARGET_PROTOS, Target, TargetError};
pub use values::PortError;
pub use yaml::MAX_SOURCE;
