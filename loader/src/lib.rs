//! The loader: owns the kernel programs, the pins and the policy, reads flows, and is the command line.

pub mod accounting;
pub mod audit;
pub mod cgroup;
pub mod cli;
pub mod commands;
pub mod contain;
pub mod control;
pub mod docker;
pub mod doctor;
pub mod enrol;
pub mod export;
pub mod filter;
pub mod instance;
pub mod kernel;
pub mod learn_file;
pub mod machine;
pub mod policy_file;
pub mod record;
pub mod render;
pub mod resolvers;
pub mod seen;
pub mod session;
pub mod sink;
pub mod trust;
pub mod user;
pub mod watch;
