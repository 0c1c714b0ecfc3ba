//! What the kernel's verifier and the compiler for it need, and the host does not.

/// Makes the verifier forget what it has worked out about `value`; the value stays the same.
///
/// The verifier walks every path with the ranges that it knows. A value that carries a different range out of each
/// turn of a loop makes it walk what follows once per turn, and of each kind of turn; forgotten, it walks it once.
/// `noise` is any value that the verifier knows nothing about.
#[inline(always)]
pub(crate) fn forget(value: u64, noise: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    {
        let mut forgotten = value;
        // SAFETY: two exclusive ors with the same register cancel out; memory and flags are untouched.
        unsafe {
            core::arch::asm!(
                "{value} ^= {noise}",
                "{value} ^= {noise}",
                value = inout(reg) forgotten,
                noise = in(reg) noise,
                options(pure, nomem, nostack),
            );
        }
        forgotten
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        let _ = noise;
        value
    }
}

/// Reads a byte once more. What is then found out about it teaches the verifier nothing about the word that it is part
/// of, so that it walks what follows once.
#[inline(always)]
pub(crate) fn again(byte: &u8) -> u8 {
    // SAFETY: a reference is readable; volatile, so that the compiler does not take what it has already read.
    unsafe { core::ptr::from_ref(byte).read_volatile() }
}

/// A 16-bit number as an index. Kernels up to 6.1 know nothing of a number whose bytes were swapped, so that they have to see
/// the mask, which the compiler would leave out.
#[inline(always)]
pub(crate) fn index(value: u16) -> usize {
    opaque(u64::from(value)) as usize & 0xffff
}

/// Hides from the compiler what it knows about a value: it then compares the value again, in one instruction,
/// instead of carrying the outcome of an earlier comparison in a register, in four.
#[inline(always)]
pub(crate) fn opaque(value: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    {
        let mut hidden = value;
        // SAFETY: a move onto itself. Not an empty text: two lines at one instruction make a kernel refuse the object.
        unsafe { core::arch::asm!("{0} = {0}", inout(reg) hidden, options(pure, nomem, nostack)) };
        hidden
    }
    #[cfg(not(target_arch = "bpf"))]
    value
}

/// `value`, or zero where `measure` is above `most` (both below 2^63); without a branch, which the compiler would make of
/// every other form.
#[inline(always)]
pub(crate) fn if_at_most(value: u64, measure: u64, most: u64) -> u64 {
    let mut sign = measure as i64 - most as i64 - 1;
    #[cfg(target_arch = "bpf")]
    // SAFETY: shifts one register; memory and flags are untouched.
    unsafe {
        core::arch::asm!("{0} s>>= 63", inout(reg) sign, options(pure, nomem, nostack));
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        sign >>= 63;
    }
    value & sign as u64
}
