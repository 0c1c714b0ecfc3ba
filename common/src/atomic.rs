//! Compare-and-swap on a shared word, for both targets.
//!
//! The BPF target of rustc has no `AtomicU64::compare_exchange`; the intrinsic behind it does compile, to the
//! `cmpxchg` instruction of kernel 5.12.

/// Puts `new` where `expected` stands; says whether it did.
///
/// # Safety
/// `word` points to a live, aligned `u64` that other CPUs change only by this function.
#[inline(always)]
pub(crate) unsafe fn replace(word: *mut u64, expected: u64, new: u64) -> bool {
    #[cfg(target_arch = "bpf")]
    {
        use core::intrinsics::{AtomicOrdering, atomic_cxchg};
        // SAFETY: the caller's word is live and aligned.
        unsafe { atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(word, expected, new).1 }
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        use core::sync::atomic::{AtomicU64, Ordering};
        // SAFETY: the caller's word is live, aligned and shared only through atomics.
        let word = unsafe { AtomicU64::from_ptr(word) };
        word.compare_exchange(expected, new, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}
