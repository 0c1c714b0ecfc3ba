//! What is done about an attack: the narrowest mechanism of the packet path that explains it.

mod signature;

use std::fmt;

use anyhow::Result;
use floodwall_common::abi::Counter;
use floodwall_common::cookie::CookieMode;
use floodwall_common::reason::{Reason, Verdict as Fate};
use floodwall_common::signatures::Action;
pub use signature::Found;

use crate::dataplane::Signature;
use crate::detect::{Assessment, Features, Group, Vector, Window};
use crate::replay::Maps;
use crate::signatures::fields_of;

/// Signatures of its own at the same time.
const SIGNATURES: usize = 8;

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub enum Measure {
    /// Packets with this finding are dropped.
    Drop(Reason),
    /// SYNs are answered with cookies.
    Cookies,
    /// Packets that suit this are dropped.
    Signature(Vector, Found),
}

impl Measure {
    /// Whether both do the same about the same: a signature of a vector is not replaced by one a little different.
    pub fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Signature(of, _), Self::Signature(of_other, _)) => of == of_other,
            _ => self == other,
        }
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drop(reason) => write!(f, "drop {}: {}", reason.label(), reason.sentence()),
            Self::Cookies => f.write_str("answer SYNs with cookies: who answers is there"),
            Self::Signature(vector, found) => {
                let Found { shape, covers, collateral, measured_on } = found;
                let (covers, collateral) = (covers * 100.0, collateral * 100.0);
                let fields = fields_of(shape);
                write!(f, "drop signature {fields}: {covers:.0} % of the {}, ", vector.label())?;
                write!(f, "{collateral:.2} % of {measured_on} good packets before it")
            }
        }
    }
}

/// Puts measures in force, all of them together.
///
/// # Errors
/// Where they cannot be compiled.
pub fn apply(measures: &[Measure], maps: &mut Maps) -> Result<()> {
    let mut signatures = Vec::new();
    for measure in measures {
        match measure {
            Measure::Drop(reason) => maps.set_policy(*reason, Fate::Drop),
            Measure::Cookies => maps.set_cookies(CookieMode::Always),
            Measure::Signature(vector, found) if signatures.len() < SIGNATURES => signatures.push(Signature {
                number: Some(signatures.len()),
                name: format!("auto-{}", vector.label()),
                shape: found.shape,
                action: Action::Drop,
                until: None,
                added: std::time::UNIX_EPOCH,
                note: "found by detection".to_owned(),
                hits: Counter::default(),
            }),
            Measure::Signature(..) => {}
        }
    }
    maps.set_signatures(&signatures)
}

/// What to do: the narrowest mechanism for each kind of flood that goes on.
pub fn respond(assessment: &Assessment, features: &Features, window: &Window) -> Vec<Measure> {
    let signature = |vector: Vector| {
        let found = signature::find(window, vector.group());
        found.map(|found| Measure::Signature(vector, found))
    };
    let mut measures = Vec::new();
    for vector in &assessment.vectors {
        match vector {
            Vector::SynFlood => {
                if features.of(Group::Syn).bare > 0.5 {
                    measures.push(Measure::Drop(Reason::BareSyn));
                }
                measures.push(Measure::Cookies);
            }
            Vector::TcpReflection | Vector::Amplification => measures.push(Measure::Drop(Reason::UnsolicitedReply)),
            // Whoever completes connections has an address that limits hold.
            Vector::HttpFlood => {}
            Vector::UdpFlood | Vector::TcpFlood | Vector::IcmpFlood | Vector::FragmentFlood | Vector::ProtocolFlood => {
                measures.extend(signature(*vector))
            }
        }
    }
    measures
}
