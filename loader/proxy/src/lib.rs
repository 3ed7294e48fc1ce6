//! The policy as configuration of stock Envoy and stock CoreDNS.
//!
//! ```text
//! Policy ─┬─ Fleet (agents, addresses) ─┐
//!         │                             ├─▶ envoy::render   ─▶ bootstrap, listeners, clusters
//!         └─ Settings (where things are)┤
//!                                       └─▶ coredns::render ─▶ Corefile
//! ```
//!
//! Pure: no files, no sockets, no clock. Every decision is [`policy::Selected::decide`]'s, asked for one
//! name of each part of the name space that the rules tell apart; here it is only laid out as routes and
//! zones. What stock programs cannot do is a [`Note`], never a silent hole.
#![forbid(unsafe_code)]

mod access;
mod agent;
mod chain;
pub mod coredns;
pub mod envoy;
mod http;
mod names;
mod note;
mod route;
mod settings;
mod upstream;

pub use access::ATTRIBUTES;
pub use agent::{Agent, AgentError, Fleet, FleetError};
pub use note::Note;
pub use settings::{ADMIN, LISTENER_OFFSET, READY_NAME, READY_PORT, Settings};
