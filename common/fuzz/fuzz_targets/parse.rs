//! Any bytes as a frame: the parser answers without reading outside, and what is true of its answer to every frame is
//! true of this one. Verdicts and limits are not asked here.

#![no_main]

use core::hint::black_box;

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/support/invariants.rs"]
mod invariants;

fuzz_target!(|frame: &[u8]| {
    black_box(invariants::check(frame));
});
