//! What is asked of Floodwall over all scenarios, and what its runs came to.

use std::cmp::Ordering;
use std::fmt::Write as _;

use super::score::Score;
use super::walls::Wall;

/// A limit that holds for the runs of some scenarios.
struct Target {
    what: &'static str,
    of: &'static [u8],
    measure: fn(&Score) -> Option<f64>,
    limit: Limit,
    by: By,
}

/// By which of the runs, from the best to the worst.
#[derive(Clone, Copy)]
enum By {
    Median,
    NineteenOfTwenty,
    Worst,
}

impl By {
    const fn label(self) -> &'static str {
        match self {
            Self::Median => "median",
            Self::NineteenOfTwenty => "95 of 100",
            Self::Worst => "worst",
        }
    }

    /// Which of so many.
    fn place(self, runs: usize) -> usize {
        match self {
            Self::Median => runs / 2,
            Self::NineteenOfTwenty => (runs * 19).div_ceil(20) - 1,
            Self::Worst => runs - 1,
        }
    }
}

#[derive(Clone, Copy)]
enum Limit {
    /// Seconds at most.
    Within(f64),
    /// A share at most, or at least.
    AtMost(f64),
    AtLeast(f64),
    /// Memory at most, in MiB.
    MiB(f64),
}

const ATTACKS: &[u8] = &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 16];
const ALL: &[u8] = &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];
const PACKETS: &[u8] = &[1, 2, 3, 4, 5, 6, 11];
const MIB: f64 = 1_048_576.0;
const TARGETS: &[Target] = &[
    Target {
        by: By::Median,
        ..of("detected: floods of packets", PACKETS, |score| score.detected_s, Limit::Within(0.75))
    },
    Target {
        by: By::NineteenOfTwenty,
        ..of("detected: floods of packets", PACKETS, |score| score.detected_s, Limit::Within(1.0))
    },
    Target {
        by: By::NineteenOfTwenty,
        ..of("mitigated: floods of packets", PACKETS, |score| score.mitigated_s, Limit::Within(1.5))
    },
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
    of(
        "lost by the group that lost most",
        ATTACKS,
        |score| Some(score.worst_group.as_ref().map_or(0.0, |(_, lost)| *lost)),
        Limit::AtMost(0.01),
    ),
    of("stopped by mistake", &[12, 15], |score| score.by_mistake, Limit::AtMost(0.0)),
    of(
        "a processor's time while nothing goes on, asked for its status ten times a second",
        ALL,
        |score| score.cpu.map(|[quiet, _]| quiet),
        Limit::AtMost(0.01),
    ),
    of("memory of daemon and maps", ALL, |score| score.memory.map(|bytes| bytes as f64 / MIB), Limit::MiB(64.0)),
];

const fn of(what: &'static str, of: &'static [u8], measure: fn(&Score) -> Option<f64>, limit: Limit) -> Target {
    Target { what, of, measure, limit, by: By::Worst }
}

impl Limit {
    /// What never came is later than all that did, and less.
    const fn missing(self) -> f64 {
        match self {
            Self::Within(_) | Self::AtMost(_) | Self::MiB(_) => f64::INFINITY,
            Self::AtLeast(_) => f64::NEG_INFINITY,
        }
    }

    /// The worse of two is the later one in order.
    fn order(self, one: f64, other: f64) -> Ordering {
        match self {
            Self::Within(_) | Self::AtMost(_) | Self::MiB(_) => one.total_cmp(&other),
            Self::AtLeast(_) => other.total_cmp(&one),
        }
    }

    fn is_kept(self, value: f64) -> bool {
        match self {
            Self::Within(limit) | Self::AtMost(limit) | Self::MiB(limit) => value <= limit,
            Self::AtLeast(limit) => value >= limit,
        }
    }

    fn in_words(self, value: f64) -> String {
        match self {
            _ if !value.is_finite() => "never".to_owned(),
            Self::Within(_) => format!("{value:.2} s"),
            Self::MiB(_) => format!("{value:.0} MiB"),
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
    let mut text = String::from(
        "| target | scenarios | by | asked | found | in scenario | reached |\n|---|---|---|---|---|---|---|\n",
    );
    for Target { what, of, measure, limit, by } in TARGETS {
        let values = ours.iter().filter(|score| of.contains(&score.scenario));
        let mut values: Vec<_> =
            values.map(|score| (measure(score).unwrap_or(limit.missing()), score.scenario)).collect();
        values.sort_by(|a, b| limit.order(a.0, b.0));
        if values.is_empty() {
            continue;
        }
        let (found, scenario) = values[by.place(values.len())];
        let (sign, asked) = match limit {
            Limit::Within(asked) | Limit::AtMost(asked) | Limit::MiB(asked) => ("≤", *asked),
            Limit::AtLeast(asked) => ("≥", *asked),
        };
        let numbers: Vec<_> = of.iter().map(ToString::to_string).collect();
        writeln!(
            text,
            "| {what} | {} | {} | {sign} {} | {} | {scenario} | {} |",
            if of.len() == ALL.len() { "all".to_owned() } else { numbers.join(", ") },
            by.label(),
            limit.in_words(asked),
            limit.in_words(found),
            if limit.is_kept(found) { "yes" } else { "**no**" }
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
        assert_eq!((within.order(0.3, 2.0), least.order(0.3, 1.0)), (Ordering::Less, Ordering::Greater));
        let places = |by: By| [1, 20, 35].map(|runs| by.place(runs));
        assert_eq!(
            (places(By::Median), places(By::NineteenOfTwenty), places(By::Worst)),
            ([0, 10, 17], [0, 18, 33], [0, 19, 34])
        );
        assert_eq!((within.in_words(within.missing()), least.in_words(0.987)), ("never".into(), "98.7 %".into()));
    }
}
