//! What the kernel half and the controller both speak.
//!
//! Pure functions and plain types: packet parsing, the order of the decision, the rate-limit arithmetic, and the
//! layout of everything that lies in a map. `no_std`, no I/O, no maps, no clock: time comes in as an argument.
//! The kernel half calls this code on the packet; the controller calls the same code to explain a verdict; tests
//! and fuzzers call it on the host, and a differential test holds the loaded program against it.

#![cfg_attr(not(test), no_std)]
#![cfg_attr(target_arch = "bpf", feature(core_intrinsics, asm_experimental_arch), allow(internal_features))]

pub mod abi;
mod atomic;
pub mod class;
pub mod clock;
pub mod closer;
pub mod config;
pub mod cookie;
pub mod decide;
pub mod first_syn;
mod frame;
pub mod groups;
pub mod hash;
pub mod limiter;
pub mod limits;
pub mod lists;
pub mod memory;
pub mod meter;
mod outcome;
pub mod packet;
pub mod reason;
pub mod replies;
pub mod services;
pub mod signatures;
pub mod verified;
mod verifier;

/// Makes a fieldless `repr(u8)` enum's variants countable and nameable, in order, from one list.
macro_rules! labelled_enum {
    (
        $(#[$meta:meta])*
        pub enum $name:ident { $( $(#[$vmeta:meta])* $variant:ident = $value:literal => $label:literal, )+ }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum $name { $( $(#[$vmeta])* $variant = $value, )+ }

        impl $name {
            /// Every variant, in the order of its number.
            pub const ALL: &'static [Self] = &[ $( Self::$variant, )+ ];

            /// The name that leaves the process: metrics label, command line, JSON.
            pub const fn label(self) -> &'static str {
                match self { $( Self::$variant => $label, )+ }
            }

            /// The variant with this number, if there is one.
            pub const fn from_index(index: u8) -> Option<Self> {
                match index { $( $value => Some(Self::$variant), )+ _ => None }
            }

            /// The variant with this label, if there is one.
            pub fn from_label(label: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|variant| variant.label() == label)
            }
        }
    };
}
pub(crate) use labelled_enum;
