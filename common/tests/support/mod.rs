//! What the tests of this crate share. Each test binary uses its own part of it.

#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests panic")]

pub(crate) mod cases;
pub(crate) mod frames;
pub(crate) mod invariants;
pub(crate) mod limiter;
pub(crate) mod model;
