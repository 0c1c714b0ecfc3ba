//! Embeds the packet filter: the daemon carries the program that it loads.

#[path = "../filter-ebpf/build_object.rs"]
mod build_object;

fn main() {
    let with_log = std::env::var_os("CARGO_FEATURE_EBPF_LOG").is_some();
    let features: &[&str] = if with_log { &["log"] } else { &[] };
    build_object::embed("floodwall", "FLOODWALL_OBJECT", features);
    build_object::embed("clock", "CLOCK_OBJECT", &[]);
}
