//! compose.yaml and the secrets it needs: what can be said of them without an engine, and the whole stack
//! in one.

mod shipped;
mod up;
