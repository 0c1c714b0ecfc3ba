//! The filters that are measured: the shipped one, with more or less armed in it.

use anyhow::{Result, ensure};
use floodwall::dataplane::{Listed, Service, Signature, Stack};
use floodwall_common::config::{Mode, Sampling};
use floodwall_common::cookie::CookieMode;
use floodwall_common::limits::{LimitKey, LimitName, Per, Rate};
use floodwall_common::lists::List;
use floodwall_common::reason::{Reason, Verdict};
use floodwall_common::services::Transport;
use floodwall_common::signatures::{Action, Fragment, Range, SIGNATURES, Shape, TcpOption, lay};

use crate::kernel::{Kernel, Ring, Time, listed, signature};

/// One packet in so many, as the daemon has it at ten million a second.
const SAMPLED: Sampling = Sampling::new([5_000; 3], 1_000);

/// What is armed. All but the cap of a service so that nothing of a random flood suits it: what is measured is looking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Armed {
    /// Default limits.
    Default,
    /// Three addresses on the allow list, as they come there by themselves.
    Peers,
    /// A hundred prefixes on the deny list.
    Lists,
    /// Limits by subnet and network.
    Ladder,
    /// Replies to nothing are dropped.
    Replies,
    /// A service with a cap, and lockdown.
    Services,
    /// As many signatures as there may be.
    Signatures,
    /// TCP of no connection is dropped.
    State,
    /// The same where SYNs are answered with cookies.
    StateBesideCookies,
    /// Everything but signatures, and ten thousand prefixes.
    AllButSignatures,
    /// Everything.
    All,
}

impl Armed {
    pub(super) const EACH: [Self; 11] = [
        Self::Default,
        Self::Peers,
        Self::Lists,
        Self::Ladder,
        Self::Replies,
        Self::Services,
        Self::Signatures,
        Self::State,
        Self::StateBesideCookies,
        Self::AllButSignatures,
        Self::All,
    ];

    fn has(self, mechanism: Self) -> bool {
        match self {
            Self::All => mechanism != Self::Default,
            Self::AllButSignatures => !matches!(mechanism, Self::Default | Self::Signatures),
            Self::StateBesideCookies => matches!(mechanism, Self::State | Self::StateBesideCookies),
            _ => self == mechanism,
        }
    }
}

/// A filter as it runs in a flood, and its ring, which somebody has to empty.
pub(super) struct Filter {
    pub(super) kernel: Kernel,
    pub(super) ring: Ring,
    pub(super) armed: Armed,
}

impl Filter {
    pub(super) fn load(armed: Armed) -> Result<Self> {
        let mut kernel = Kernel::load(Time::Ticks)?;
        if armed == Armed::Peers {
            let peers = ["192.0.2.1/32", "192.0.2.53/32", "198.51.100.7/32"].map(|peer| listed(peer, None));
            kernel.replace_list(List::Allow, &peers.into_iter().collect::<Result<Vec<_>>>()?)?;
        }
        if armed.has(Armed::Lists) {
            kernel.replace_list(List::Deny, &prefixes(if armed == Armed::Lists { 100 } else { 10_000 })?)?;
        }
        if armed.has(Armed::Ladder) {
            for per in [Per::Subnet, Per::Network] {
                let ample = Rate::Limit { per_second: 1_000_000, burst: 1_000_000 };
                kernel.set_limit(LimitKey { name: LimitName::Udp, per }, ample, Rate::Off)?;
            }
        }
        if armed.has(Armed::Replies) {
            kernel.dataplane.set_policy(Reason::UnsolicitedReply, Verdict::Drop)?;
        }
        if armed.has(Armed::Services) {
            let cap = Rate::Limit { per_second: 1_000_000, burst: 10_000 };
            let served = Service { cap, ..Service::uncapped("dns", vec![(Transport::Udp, 53)]) };
            kernel.dataplane.set_services(&[served], None)?;
            kernel.dataplane.set_policy(Reason::NoService, Verdict::Drop)?;
        }
        if armed.has(Armed::Signatures) {
            kernel.replace_signatures(&all_signatures())?;
        }
        if armed.has(Armed::AllButSignatures) {
            for reason in [Reason::BareSyn, Reason::FirstSyn] {
                kernel.dataplane.set_policy(reason, Verdict::Drop)?;
            }
        }
        if armed.has(Armed::State) {
            kernel.dataplane.set_policy(Reason::OutOfState, Verdict::Drop)?;
        }
        if armed.has(Armed::StateBesideCookies) {
            let stack = Stack { syncookies: Some(2), timestamps: 2, window_scale: 7 };
            let answers = Rate::Limit { per_second: 1_000, burst: 1_000 };
            kernel.dataplane.set_cookies(CookieMode::Always, answers, 1_500, stack)?;
        }
        kernel.dataplane.set_mode(Mode::Enforce)?;
        kernel.dataplane.set_sampling(SAMPLED)?;
        let ring = kernel.ring()?;
        Ok(Self { kernel, ring, armed })
    }

    /// What was measured is what the names say: the hot source was dropped, and what is on a list or over a cap; all else passed.
    pub(super) fn check(&self) -> Result<()> {
        let counted = self.kernel.counted();
        let said = || format!("{:?}: {:?}", self.armed, counted.cells());
        let reasons = [Reason::Passed, Reason::PacketLimit, Reason::Denied, Reason::ServiceCap, Reason::NoService];
        let [passed, limited, denied, capped, unserved] = reasons.map(|reason| counted.of(reason));
        let strays = counted.of(Reason::OutOfState);
        ensure!(passed + limited + denied + capped + unserved + strays == counted.packets(), "{}", said());
        ensure!((strays > 0) == matches!(self.armed, Armed::State | Armed::StateBesideCookies), "{}", said());
        ensure!((unserved > 0) == (self.armed == Armed::All), "{}", said());
        ensure!((denied > 0) == self.armed.has(Armed::Lists), "{}", said());
        // Of the five cases of the default filter one is a hot source.
        let is_right = match self.armed {
            Armed::State | Armed::StateBesideCookies => strays == counted.packets(),
            Armed::Default => limited > counted.packets() / 6 && limited < counted.packets() / 2,
            _ if self.armed.has(Armed::Services) => limited == 0 && passed > 0,
            _ => limited + capped == 0 && passed > counted.packets() / 2,
        };
        ensure!(is_right, "{}", said());
        let hits: u64 = self.kernel.dataplane.signatures()?.iter().map(|signature| signature.hits.packets).sum();
        ensure!(hits == 0, "{hits} hits of signatures");
        Ok(())
    }
}

/// So many prefixes of /24 all over the address space; one in twenty-five lies where the random sources do, so that with a
/// hundred about one packet in sixty is near one and one in sixteen thousand on the list.
fn prefixes(count: u32) -> Result<Vec<Listed>> {
    (0..count)
        .map(|place| {
            let first = if place % 25 == 0 { 11 } else { 20 + place % 200 };
            let prefix = place.wrapping_mul(2_654_435_761) >> 16;
            listed(&format!("{first}.{}.{}.0/24", prefix >> 8, prefix & 0xff), None)
        })
        .collect()
}

/// All the signatures that there may be, of eight shapes. The packets of the cases suit none, but most of the fields of many:
/// those that look at the payload are left until it is read.
fn all_signatures() -> Vec<Signature> {
    let range = |first, last| Range { first, last };
    let udp = Shape { protocol: 17, ..Shape::ANY };
    let shape = |number: u16| match number % 8 {
        0 => Shape { source_ports: range(number, number), lengths: range(400, 1_500), ..udp },
        1 => Shape { destination_ports: range(1_000 + number, 1_010 + number), ..udp },
        2 => Shape { lengths: range(500 + number, 500 + number), ..udp },
        3 => Shape { hops: range(65 + number / 8, 128), lengths: range(46, 46), ..udp },
        4 => Shape { layout: lay(u64::from(number), TcpOption::Mss), asks_layout: 1, ..Shape::ANY },
        5 => Shape { flags: 2, flags_mask: 0x12, destination_ports: range(number, number), ..Shape::ANY },
        6 => Shape {
            payload: u64::from(number) << 56,
            payload_mask: 0xff << 56,
            destination_ports: range(53, 53),
            ..udp
        },
        _ => Shape { fragments: 1 << Fragment::Later as u8, lengths: range(number, 1_500), ..udp },
    };
    let shapes = (0..SIGNATURES as u16).map(shape);
    shapes.enumerate().map(|(number, shape)| signature(&format!("s{number}"), shape, Action::Drop, None)).collect()
}
