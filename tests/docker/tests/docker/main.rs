//! Real containers under the firewall.

mod births;
mod chaos;
mod harness;
mod news;
mod outage;
mod served;
mod served_gate;
mod served_lives;
mod served_metrics;
mod served_nested;
mod served_networks;
mod served_outage;
mod served_proxies;
mod served_raw;
mod served_storm;
mod storm;
