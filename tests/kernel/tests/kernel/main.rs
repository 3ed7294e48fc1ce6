//! Tests of the real binary on the real kernel. One program, because thirty take three times as long to
//! link; cargo-nextest still runs every test in a process of its own.

mod accounting;
mod containment;
mod dns_filter;
mod dns_hostile;
mod dns_learning;
mod dns_stream;
mod evasion_around;
mod evasion_attach;
mod evasion_calls;
mod evasion_destinations;
mod evasion_flood;
mod evasion_lifting;
mod evasion_memory;
mod evasion_names;
mod evasion_packets;
mod evasion_sockets;
mod first;
mod hooks;
mod instances;
mod lifecycle;
mod modes;
mod policy_live;
mod tcp;
mod tcp_failed;
mod tcp_many;
mod terminal;
mod test_run;
mod tour;
mod udp;
mod udp_batches;
