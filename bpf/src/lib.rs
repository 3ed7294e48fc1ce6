//! The decisions of the kernel side as pure functions: what a packet says, which rule wins, what a
//! DNS message names, how many bytes a TCP connection carried.
//!
//! Nothing here calls the kernel, so all of it is tested on the host; the programs in the binary
//! fetch the inputs and carry the results out. Loops have constant bounds and no index can panic:
//! the verifier reads the same code.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod addr;
pub mod decide;
pub mod dns;
pub mod tcp;
pub mod upkeep;
pub mod wire;
