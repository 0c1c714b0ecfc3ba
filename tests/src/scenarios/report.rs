//! Scores as a table for people, and as one for a document.

use std::fmt::Write as _;

use super::run::Settings;
use super::score::{CAP, Score, median, suite};
use super::targets;

/// The columns, the same for both tables.
const COLUMNS: [&str; 13] = [
    "#",
    "scenario",
    "wall",
    "truth",
    "verdict",
    "right",
    "detected, s",
    "verdict, s",
    "mitigated, s",
    "stopped",
    "lost",
    "by mistake",
    "points",
];

/// A row: the median of the seeds of one scenario behind one wall, and the worst points.
struct Row(Vec<String>);

fn rows(scores: &[Score]) -> Vec<Row> {
    let mut keys: Vec<(u8, &str)> = scores.iter().map(|score| (score.scenario, &*score.wall)).collect();
    keys.dedup();
    let mut seen: Vec<(u8, &str)> = Vec::new();
    for key in keys {
        if !seen.contains(&key) {
            seen.push(key);
        }
    }
    seen.sort_by_key(|(number, _)| *number);
    let of = |(number, wall): (u8, &str)| {
        let of: Vec<&Score> = scores.iter().filter(|score| score.scenario == number && score.wall == wall).collect();
        row(&of)
    };
    seen.into_iter().map(of).collect()
}

fn row(of: &[&Score]) -> Row {
    let first = of[0];
    let of_those = |pick: &dyn Fn(&Score) -> Option<f64>| {
        // What never came is later than all that did.
        let values: Vec<f64> = of.iter().map(|score| pick(score).unwrap_or(f64::INFINITY)).collect();
        median(values)
    };
    let seconds = |pick: &dyn Fn(&Score) -> Option<f64>| match of_those(pick) {
        value if value.is_finite() => format!("{value:.1}"),
        _ => "–".to_owned(),
    };
    let percent = |value: Option<f64>| value.map_or("–".to_owned(), |value| format!("{:.1} %", value * 100.0));
    let share = |pick: &dyn Fn(&Score) -> Option<f64>| {
        let values: Vec<f64> = of.iter().filter_map(|score| pick(score)).collect();
        percent((!values.is_empty()).then(|| median(values)))
    };
    let mut verdicts: Vec<String> = of
        .iter()
        .map(|score| match (&score.verdict, score.vectors.is_empty()) {
            (None, _) => "–".to_owned(),
            (Some(verdict), true) => verdict.clone(),
            (Some(verdict), false) => format!("{verdict} ({})", score.vectors.join(", ")),
        })
        .collect();
    verdicts.sort();
    verdicts.dedup();
    let right = of.iter().filter(|score| score.is_verdict_right && score.are_vectors_right_or_none()).count();
    let points: Vec<f64> = of.iter().map(|score| score.points.sum()).collect();
    let worst = points.iter().copied().fold(f64::INFINITY, f64::min);
    let points = match of.len() {
        1 => format!("{worst:.0}"),
        _ => format!("{:.0} ({worst:.0})", median(points)),
    };
    Row(vec![
        first.scenario.to_string(),
        first.name.to_string(),
        first.wall.to_string(),
        first.truth.label().to_owned(),
        verdicts.join("; "),
        format!("{right}/{}", of.len()),
        seconds(&|score| score.detected_s),
        seconds(&|score| score.verdict_s),
        seconds(&|score| score.mitigated_s),
        match (share(&|score| score.stopped_after), share(&|score| score.stopped)) {
            (_, all) if all == "–" => all,
            (after, all) => format!("{after} / {all}"),
        },
        share(&|score| Some(score.loss)),
        share(&|score| score.by_mistake),
        points,
    ])
}

impl Score {
    fn are_vectors_right_or_none(&self) -> bool {
        !self.truth.is_attack() || self.are_vectors_right
    }
}

/// For people.
pub fn table(scores: &[Score]) -> String {
    let rows = rows(scores);
    let width = |column: usize| {
        let cells = rows.iter().map(|Row(cells)| cells[column].chars().count());
        cells.chain([COLUMNS[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..COLUMNS.len()).map(width).collect();
    let line = |cells: Vec<String>| {
        let padded: Vec<String> = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        padded.join("  ").trim_end().to_owned() + "\n"
    };
    let mut text = line(COLUMNS.iter().map(|&column| column.to_owned()).collect());
    for Row(cells) in rows {
        text += &line(cells);
    }
    text + "\n" + &suites(scores)
}

/// For a document, with where it is from.
///
/// # Errors
/// Where the machine does not say what it is.
pub fn markdown(scores: &[Score], settings: &Settings) -> anyhow::Result<String> {
    let level = settings.level;
    let mut text = format!(
        "{} Level {}: attacks of {:.0} packets/s, {:.0} legitimate requests/s; as many runs of each as `right` says, each with another seed; {:.0} s of warm-up, {:.0} s quiet. \
         Processors: {:.0} % idle, {:.0} % with other machines.\n\n",
        crate::bench::markdown::machine()?,
        level.name.to_uppercase(),
        level.attack_pps,
        level.base_rps,
        settings.timing.warm_up_s,
        settings.timing.quiet_s,
        median(scores.iter().map(|score| score.machine.0).collect()) * 100.0,
        median(scores.iter().map(|score| score.machine.1).collect()) * 100.0,
    );
    writeln!(text, "| {} |\n|{}", COLUMNS.join(" | "), "---|".repeat(COLUMNS.len()))?;
    for Row(cells) in rows(scores) {
        writeln!(text, "| {} |", cells.join(" | "))?;
    }
    text += "\n";
    text += &suites(scores).lines().map(|line| format!("- {line}\n")).collect::<String>();
    Ok(text + "\n" + &targets::markdown(scores)?)
}

fn suites(scores: &[Score]) -> String {
    let mut walls: Vec<&str> = scores.iter().map(|score| &*score.wall).collect();
    walls.sort_unstable();
    walls.dedup();
    let of = |wall: &str| {
        let of: Vec<&Score> = scores.iter().filter(|score| score.wall == wall).collect();
        let (points, is_capped) = suite(&of);
        let why = if is_capped {
            format!(", no more than {CAP:.0} since it has stopped benign traffic")
        } else {
            String::new()
        };
        format!("{wall}: {points:.0} of 100{why}\n")
    };
    walls.into_iter().map(of).collect()
}
