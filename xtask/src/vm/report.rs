//! The end of `vm`: a row for each kernel, as a table for people or as JSON.

use super::archive::Version;
use super::console::{Console, Load};
use super::{FLOOR, FRAGS_FLOOR};

/// What came of one kernel.
pub(super) struct Row {
    /// As it was asked for.
    pub(super) asked: String,
    version: Option<String>,
    /// Whether it has to take the programs: for linear frames, and for frames in fragments.
    has_to_load: [bool; 2],
    console: Console,
    /// What kept the machine from its end.
    trouble: Option<String>,
    pub(super) seconds: u64,
}

impl Row {
    pub(super) fn new(asked: &str, version: &Version, console: Console) -> Self {
        let trouble = (!console.is_complete).then(|| "ended before everything was run".to_owned());
        Self { console, trouble, ..Self::failed(asked, version, String::new()) }
    }

    pub(super) fn failed(asked: &str, version: &Version, trouble: String) -> Self {
        let has_to_load = [FLOOR, FRAGS_FLOOR].map(|floor| version.major_minor() >= floor);
        let version = Some(version.text().to_owned());
        Self { version, has_to_load, trouble: Some(trouble), ..Self::missing(asked) }
    }

    /// A kernel that the mirror does not have: nothing is known of it, which is no success.
    pub(super) fn missing(asked: &str) -> Self {
        let trouble = Some("not in the mirror".to_owned());
        let console = Console::default();
        Self { asked: asked.to_owned(), version: None, has_to_load: [true; 2], console, trouble, seconds: 0 }
    }

    /// Above the floor everything has to be good. Below, it has to be known how it is not.
    pub(super) fn is_good(&self) -> bool {
        let loads = [&self.console.linear, &self.console.frags];
        let is_taken = |load: &Option<Load>| matches!(load, Some(Load::Taken(_)));
        let all_taken = self.has_to_load.iter().zip(loads).all(|(has_to, load)| !has_to || is_taken(load));
        let all_good = self.console.tests.iter().all(|test| test.is_good);
        self.trouble.is_none() && (!self.has_to_load[0] || all_taken && all_good)
    }

    fn verdict(&self) -> String {
        match (&self.trouble, self.is_good(), self.has_to_load[0]) {
            (Some(trouble), ..) => trouble.clone(),
            (None, true, true) => "good".into(),
            (None, false, _) => "NOT GOOD".into(),
            (None, true, false) => "below the floor".into(),
        }
    }

    fn tests(&self) -> String {
        let tests = self.console.tests.iter().filter(|test| test.name != "probe");
        let (good, bad): (Vec<_>, Vec<_>) = tests.partition(|test| test.is_good);
        let names: Vec<_> = bad.iter().map(|test| test.name.as_str()).collect();
        match (good.len(), names.join(", ")) {
            (0, names) if names.is_empty() => "-".into(),
            (good, names) if names.is_empty() => format!("{good} good"),
            (good, names) => format!("{good} good, FAILED: {names}"),
        }
    }

    fn cells(&self) -> [String; 9] {
        let version = self.version.clone().unwrap_or_else(|| "-".into());
        let boots = if self.console.has_booted { "yes" } else { "no" };
        let [linear, frags] = [&self.console.linear, &self.console.frags].map(|load| loaded(load.as_ref()));
        let (verified, verified_frags) = (linear.1, frags.1);
        [
            self.asked.clone(),
            version,
            boots.into(),
            linear.0.into(),
            frags.0.into(),
            format!("{verified} / {verified_frags}"),
            self.tests(),
            self.seconds.to_string(),
            self.verdict(),
        ]
    }
}

/// Whether a program was taken, and the instructions verified.
fn loaded(load: Option<&Load>) -> (&'static str, String) {
    match load {
        Some(Load::Taken(verified)) => ("yes", verified.map_or_else(|| "?".into(), |number| number.to_string())),
        Some(Load::Refused(_)) => ("refused", "-".into()),
        None => ("-", "-".into()),
    }
}

const HEADINGS: [&str; 9] =
    ["kernel", "version", "boots", "linear", "frags", "verified instructions", "tests", "seconds", "verdict"];

/// The rows under their headings, and below them why something was refused.
pub(super) fn table(rows: &[Row]) -> String {
    let lines: Vec<_> = std::iter::once(HEADINGS.map(str::to_owned)).chain(rows.iter().map(Row::cells)).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; HEADINGS.len()] = std::array::from_fn(width);
    let shown = |line: &[String; HEADINGS.len()]| {
        let cells = line.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let refusals = rows.iter().filter_map(|row| Some(format!("{}: {}", row.asked, refusal(row)?)));
    lines.iter().map(shown).chain(refusals).collect::<Vec<_>>().join("\n")
}

fn refusal(row: &Row) -> Option<&str> {
    [&row.console.linear, &row.console.frags].into_iter().find_map(|load| match load {
        Some(Load::Refused(reason)) => Some(reason.as_str()),
        _ => None,
    })
}

/// An array of objects, one for each kernel.
pub(super) fn json(rows: &[Row]) -> String {
    format!("[{}]", rows.iter().map(object).collect::<Vec<_>>().join(","))
}

fn object(row: &Row) -> String {
    let load = |load: &Option<Load>| match load {
        Some(Load::Taken(verified)) => {
            let verified = verified.map_or_else(|| "null".into(), |number| number.to_string());
            format!("{{\"loads\":true,\"verified_instructions\":{verified}}}")
        }
        Some(Load::Refused(reason)) => format!("{{\"loads\":false,\"reason\":{}}}", quoted(reason)),
        None => "null".into(),
    };
    let test = |test: &super::console::Test| {
        format!("{{\"name\":{},\"good\":{},\"seconds\":{}}}", quoted(&test.name), test.is_good, test.seconds)
    };
    let tests: Vec<_> = row.console.tests.iter().map(test).collect();
    format!(
        "{{\"kernel\":{},\"version\":{},\"boots\":{},\"linear\":{},\"frags\":{},\"tests\":[{}],\"seconds\":{},\
         \"good\":{},\"verdict\":{}}}",
        quoted(&row.asked),
        row.version.as_deref().map_or_else(|| "null".into(), quoted),
        row.console.has_booted,
        load(&row.console.linear),
        load(&row.console.frags),
        tests.join(","),
        row.seconds,
        row.is_good(),
        quoted(&row.verdict()),
    )
}

/// A string of JSON.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            control if control.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(control))),
            other => quoted.push(other),
        }
    }
    quoted + "\""
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn row(version: &str, lines: &[&str]) -> Row {
        let mut console = Console::default();
        for line in lines {
            console.hear(line, Duration::ZERO);
        }
        Row::new("x", &Version::new(version), console)
    }

    const COMPLETE: &str = "floodwall-vm: complete";
    const REFUSED: [&str; 3] = ["load linear refused: no", "load frags refused: \"no\"", COMPLETE];

    #[test]
    fn above_the_floor_everything_has_to_load() {
        assert!(row("6.1.1-1", &["load linear 1", "load frags 2", COMPLETE]).is_good());
        assert!(!row("6.1.1-1", &["load linear 1", "load frags refused: no", COMPLETE]).is_good());
        assert!(!row("6.1.1-1", &REFUSED).is_good());
    }

    #[test]
    fn what_is_newer_than_a_kernel_is_not_asked_of_it() {
        assert!(row("5.15.1-1", &["load linear ?", "load frags refused: no", COMPLETE]).is_good());
        assert!(!row("5.15.1-1", &REFUSED).is_good());
        assert!(row("5.10.1-1", &REFUSED).is_good());
    }

    #[test]
    fn without_the_last_mark_nothing_is_a_success() {
        assert!(!row("6.1.1-1", &["load linear 1", "load frags 2"]).is_good());
        assert!(!row("5.10.1-1", &REFUSED[..2]).is_good());
        assert!(!Row::missing("5.15").is_good());
    }

    #[test]
    fn a_test_that_fails_fails_its_kernel() {
        let lines = ["load linear 1", "load frags 2", "floodwall-vm: end table 101", COMPLETE];
        let row = row("6.1.1-1", &lines);
        assert!(!row.is_good());
        assert!(table(&[row]).contains("0 good, FAILED: table"));
    }

    #[test]
    fn the_result_is_json_whatever_the_kernel_says() {
        let json = json(&[row("5.10.1-1", &REFUSED), Row::missing("5.15")]);
        assert!(json.starts_with("[{\"kernel\":\"x\",\"version\":\"5.10.1-1\",\"boots\":false"), "{json}");
        assert!(json.contains("\"frags\":{\"loads\":false,\"reason\":\"\\\"no\\\"\"}"), "{json}");
        assert!(json.ends_with("\"verdict\":\"not in the mirror\"}]"), "{json}");
    }
}
