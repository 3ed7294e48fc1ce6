//! Real containers under the firewall.

mod births;
mod harness;
mod news;
mod outage;
mod served;
mod storm;
