//! The stack tier.
