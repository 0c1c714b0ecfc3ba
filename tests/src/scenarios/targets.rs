//! What is asked of Floodwall over all scenarios, and what the worst run of each came to.

use std::fmt::Write as _;

use super::score::Score;
use super::walls::Wall;

/// A limit that holds for the worst of all runs of some scenarios.
struct Target {
    what: &'static str,
    of: &'static [u8],
    measure: fn(&Score) -> Option<f64>,
    limit: Limit,
}

#[derive(Clone, Copy)]
enum Limit {
    /// Seconds at most.
    Within(f64),
    /// A share at most, or at least.
    AtMost(f64),
    AtLeast(f64),
}

const ATTACKS: &[u8] = &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 16];
const TARGETS: &[Target] = &[
    of("detected: floods of packets", &[1, 2, 3, 4, 5, 6, 11], |score| score.detected_s, Limit::Within(1.0)),
    of("mitigated: floods of packets", &[1, 2, 3, 4, 5, 6, 11], |score| score.mitigated_s, Limit::Within(1.5)),
    of("mitigated: HTTP flood", &[9], |score| score.mitigated_s, Limit::Within(8.0)),
    of("mitigated: pulses from the fourth on", &[7], |score| score.mitigated_s, Limit::Within(0.2)),
    of("verdict: surge", &[12], |score| score.verdict_s, Limit::Within(3.0)),
    of("verdict: overload", &[13], |score| score.verdict_s, Limit::Within(5.0)),
    of("verdict: misconfiguration", &[14], |score| score.verdict_s, Limit::Within(15.0)),
    of("verdict: mixed", &[16], |score| score.verdict_s, Limit::Within(10.0)),
    of("stopped: spoofed and reflected", &[1, 3, 4], |score| score.stopped_after, Limit::AtLeast(0.995)),
    of("stopped: other floods of packets", &[2, 5, 6, 11], |score| score.stopped_after, Limit::AtLeast(0.99)),
    of("stopped: HTTP flood", &[9], |score| score.stopped_after, Limit::AtLeast(0.95)),
    of("stopped: in a crowd", &[16], |score| score.stopped_after, Limit::AtLeast(0.97)),
    of("lost by customers under attack", ATTACKS, |score| Some(score.loss), Limit::AtMost(0.005)),
    of("stopped by mistake", &[12, 15], |score| score.by_mistake, Limit::AtMost(0.0)),
];

const fn of(what: &'static str, of: &'static [u8], measure: fn(&Score) -> Option<f64>, limit: Limit) -> Target {
    Target { what, of, measure, limit }
}

impl Limit {
    /// What never came is later than all that did, and less.
    const fn missing(self) -> f64 {
        match self {
            Self::Within(_) | Self::AtMost(_) => f64::INFINITY,
            Self::AtLeast(_) => f64::NEG_INFINITY,
        }
    }

    fn worse(self, one: f64, other: f64) -> f64 {
        match self {
            Self::Within(_) | Self::AtMost(_) => one.max(other),
            Self::AtLeast(_) => one.min(other),
        }
    }

    fn is_kept(self, value: f64) -> bool {
        match self {
            Self::Within(limit) | Self::AtMost(limit) => value <= limit,
            Self::AtLeast(limit) => value >= limit,
        }
    }

    fn in_words(self, value: f64) -> String {
        match self {
            _ if !value.is_finite() => "never".to_owned(),
            Self::Within(_) => format!("{value:.1} s"),
            Self::AtMost(_) | Self::AtLeast(_) => format!("{:.1} %", value * 100.0),
        }
    }
}

/// As a table in Markdown: what is asked, and the worst of what was measured. What was not played has no line.
///
/// # Errors
/// None that can happen: it writes into memory.
pub fn markdown(scores: &[Score]) -> Result<String, std::fmt::Error> {
    let ours: Vec<&Score> = scores.iter().filter(|score| score.wall == Wall::Floodwall.name()).collect();
    let mut text =
        String::from("| target | scenarios | asked | worst run | in scenario | reached |\n|---|---|---|---|---|---|\n");
    for Target { what, of, measure, limit } in TARGETS {
        let values = ours.iter().filter(|score| of.contains(&score.scenario));
        let values = values.map(|score| (measure(score).unwrap_or(limit.missing()), score.scenario));
        let worst = values.reduce(|a, b| if limit.worse(a.0, b.0) == a.0 { a } else { b });
        let Some((worst, scenario)) = worst else { continue };
        let (sign, asked) = match limit {
            Limit::Within(asked) | Limit::AtMost(asked) => ("≤", *asked),
            Limit::AtLeast(asked) => ("≥", *asked),
        };
        let numbers: Vec<_> = of.iter().map(ToString::to_string).collect();
        writeln!(
            text,
            "| {what} | {} | {sign} {} | {} | {scenario} | {} |",
            numbers.join(", "),
            limit.in_words(asked),
            limit.in_words(worst),
            if limit.is_kept(worst) { "yes" } else { "**no**" }
        )?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_counts_and_what_never_came_is_worst() {
        let (within, least) = (Limit::Within(1.5), Limit::AtLeast(0.99));
        assert!(within.is_kept(1.5) && !within.is_kept(1.6) && !within.is_kept(within.missing()));
        assert!(least.is_kept(0.99) && !least.is_kept(0.989) && !least.is_kept(least.missing()));
        assert_eq!((within.worse(0.3, 2.0), least.worse(0.3, 1.0)), (2.0, 0.3));
        assert_eq!((within.in_words(within.missing()), least.in_words(0.987)), ("never".into(), "98.7 %".into()));
    }
}
