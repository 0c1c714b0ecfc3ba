//! Embeds the programs that only measurements load, such as the bare drop that all else is held against.

#[path = "../filter-ebpf/build_object.rs"]
mod build_object;

fn main() {
    build_object::embed("bench", "BENCH_OBJECT", &[]);
}
