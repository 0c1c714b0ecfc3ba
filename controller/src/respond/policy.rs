//! What is done about which cause: nothing, a word of advice, or the deed. What the deed is, the other modules say.

use std::collections::BTreeMap;

use crate::detect::{Assessment, Vector, Verdict};

/// What is done about what goes on.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
    clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// Nothing; it is told what goes on.
    Off,
    /// It is told what would be done.
    Advise,
    /// It is done, for ten minutes at a time.
    #[default]
    Act,
}

impl Policy {
    /// The name that leaves the process.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Advise => "advise",
            Self::Act => "act",
        }
    }
}

/// Something that is responded to: a kind of flood, or clients that ask too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// A flood of this kind.
    Flood(Vector),
    /// Customers, more than can be served.
    Overload,
    /// A few clients that ask far more than they mean to.
    Misconfiguration,
}

impl Cause {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        Vector::ALL.into_iter().map(Self::Flood).chain([Self::Overload, Self::Misconfiguration])
    }

    /// The name that leaves the process: that of the kind of flood, or of the verdict.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Flood(vector) => vector.label(),
            Self::Overload => Verdict::Overload.label(),
            Self::Misconfiguration => Verdict::Misconfiguration.label(),
        }
    }

    /// The cause of this name.
    pub fn from_label(label: &str) -> Option<Self> {
        Self::all().find(|cause| cause.label() == label)
    }

    /// What clients do by this verdict, where that is responded to.
    pub const fn of_demand(verdict: Verdict) -> Option<Self> {
        match verdict {
            Verdict::Overload => Some(Self::Overload),
            Verdict::Misconfiguration => Some(Self::Misconfiguration),
            Verdict::Normal | Verdict::Surge | Verdict::Attack | Verdict::Mixed => None,
        }
    }
}

impl From<Vector> for Cause {
    fn from(vector: Vector) -> Self {
        Self::Flood(vector)
    }
}

/// What is done about each cause.
#[derive(Clone, Debug, Default)]
pub struct Policies {
    /// About those that are not named.
    pub other: Policy,
    /// About those that are.
    pub named: BTreeMap<Cause, Policy>,
}

impl Policies {
    /// What is done about this one.
    pub fn of(&self, cause: impl Into<Cause>) -> Policy {
        self.named.get(&cause.into()).copied().unwrap_or(self.other)
    }

    /// The causes that nothing is done about by itself.
    pub fn waiting(&self) -> Vec<Cause> {
        Cause::all().filter(|cause| self.of(*cause) != Policy::Act).collect()
    }

    /// What there is to respond to under this policy: of an assessment the floods that have it; `None` where nothing has.
    pub fn under(&self, policy: Policy, assessment: &Assessment) -> Option<Assessment> {
        let is_under = |cause: Cause| self.of(cause) == policy;
        if !assessment.verdict.is_attack() {
            return Cause::of_demand(assessment.verdict).filter(|cause| is_under(*cause)).map(|_| assessment.clone());
        }
        let mut assessment = assessment.clone();
        assessment.current.retain(|vector| is_under(Cause::Flood(*vector)));
        Some(assessment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_a_policy_and_a_name_of_its_own() {
        assert!(Cause::all().all(|cause| Cause::from_label(cause.label()) == Some(cause)));
        assert_eq!(Cause::from_label("surge"), None, "nothing is done about customers who can be served");
        let policies = Policies {
            other: Policy::Act,
            named: [
                (Cause::Misconfiguration, Policy::Advise),
                (Cause::Overload, Policy::Off),
                (Vector::UdpFlood.into(), Policy::Advise),
            ]
            .into(),
        };
        let of = |verdict| Assessment {
            verdict,
            current: vec![Vector::UdpFlood, Vector::SynFlood],
            ..Assessment::default()
        };
        let under = |policy, verdict| policies.under(policy, &of(verdict)).map(|under| under.current);
        assert_eq!(under(Policy::Act, Verdict::Attack), Some(vec![Vector::SynFlood]));
        assert_eq!(under(Policy::Advise, Verdict::Mixed), Some(vec![Vector::UdpFlood]));
        assert!(under(Policy::Advise, Verdict::Misconfiguration).is_some());
        for (policy, verdict) in [
            (Policy::Act, Verdict::Misconfiguration),
            (Policy::Act, Verdict::Overload),
            (Policy::Advise, Verdict::Overload),
            (Policy::Act, Verdict::Surge),
            (Policy::Act, Verdict::Normal),
        ] {
            assert_eq!(under(policy, verdict), None, "{policy:?} {verdict:?}");
        }
        assert_eq!(policies.waiting(), [Cause::Flood(Vector::UdpFlood), Cause::Overload, Cause::Misconfiguration]);
    }
}
