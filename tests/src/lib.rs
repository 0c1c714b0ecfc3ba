//! What the end-to-end tests, the lab and the benches share.

pub mod arrivals;
pub mod bench;
pub mod captures;
pub mod clock;
pub mod daemon;
pub mod flood;
pub mod frames;
pub mod http;
pub mod kernel;
pub mod link;
pub mod netns;
pub mod pins;
pub mod root;
pub mod scenarios;
pub mod stand;
pub mod topology;
pub mod traffic;
