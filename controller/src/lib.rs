//! The user half of Floodwall: loads the filter, steers it, and says what it does.
//!
//! - [`dataplane`]: the only module that knows BPF: maps, programs, links.
//! - [`snapshot`]: what the dataplane looked like at one moment; every view is made from it.
//! - [`daemon`]: the loop that takes snapshots and the API that serves them.
//! - [`configuration`]: the file, and what of it is not in force yet.
//! - [`cli`]: the command line; talks to the daemon, or to the pinned maps where there is none.

pub mod api;
pub mod audit;
pub mod capabilities;
pub mod cli;
pub mod configuration;
pub mod control;
pub mod daemon;
pub mod dataplane;
pub mod detect;
pub mod doctor;
pub mod exit;
pub mod explain;
mod files;
pub mod groups;
pub mod history;
pub mod incident;
mod latencies;
pub mod listeners;
pub mod lockout;
pub mod metrics;
pub mod past;
pub mod peers;
pub mod picture;
pub mod prefixes;
pub mod pressure;
pub mod preview;
pub mod replay;
pub mod respond;
mod self_test;
pub mod signatures;
pub mod snapshot;
pub mod talkers;
