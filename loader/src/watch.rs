//! Watching instances: connections to their control sockets, what is kept of what they say, and how it
//! looks on a terminal. Only [`links`] has effects.

pub mod columns;
pub mod details;
pub mod edit;
pub mod keys;
pub mod links;
pub mod model;
pub mod table;
pub mod view;
