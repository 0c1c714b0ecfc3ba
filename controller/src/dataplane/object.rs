//! The kernel half, as it was built into this binary.

use floodwall_common::abi::InterfaceRecord;
use sha2::{Digest, Sha256};

/// The ELF object, aligned as its parser wants it.
#[repr(C, align(8))]
struct Aligned<T: ?Sized>(T);

static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!(env!("FLOODWALL_OBJECT")));

/// The ELF object of the filter.
pub(super) fn bytes() -> &'static [u8] {
    &OBJECT.0
}

/// The first bytes of its SHA-256: which program is attached.
pub fn hash() -> [u8; size_of_hash()] {
    let digest = Sha256::digest(bytes());
    std::array::from_fn(|index| digest[index])
}

const fn size_of_hash() -> usize {
    size_of::<InterfaceRecord>() - std::mem::offset_of!(InterfaceRecord, object_hash)
}
