//! Rules for the words that leave the process: every metric and every reason is explained to
//! operators, and nothing is explained that is not there.

use std::collections::BTreeMap;

use super::{Finding, SourceFile, Tree, is_comment, missing, string_literals};

const METRICS_DOCS: &str = "docs/metrics.md";
const REASON: &str = "common/src/reason.rs";
const REASONS_DOCS: &str = "docs/reasons.md";
const PREFIX: &str = "floodwall_";

/// Words, each with the file and line where it was first found.
type Words<'t> = BTreeMap<&'t str, (&'t SourceFile, usize)>;

/// The metrics in the code are those in the manual. In the code a metric is a string literal that
/// is its whole name; in the manual, a word that begins with `floodwall_`.
pub(super) fn metrics(tree: &Tree) -> Vec<Finding> {
    let code = words(tree.rust().filter(|file| speaks_of_metrics(&file.path)), metric_literals);
    let Some(manual) = tree.file(METRICS_DOCS) else {
        return vec![missing(METRICS_DOCS, 1, "not found: it explains every metric")];
    };
    let documented = words([manual], metric_words);
    let mut findings = undocumented(&code, &documented, METRICS_DOCS);
    findings.extend(absent(&documented, |name| code.contains_key(series_of(name))));
    findings
}

fn speaks_of_metrics(path: &str) -> bool {
    path.starts_with("controller/src/metrics")
}

fn metric_literals(line: &str) -> Vec<&str> {
    let literals = string_literals(line).into_iter();
    literals.filter(|literal| metric_words(literal) == [*literal]).collect()
}

fn metric_words(line: &str) -> Vec<&str> {
    let words = line.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    // A family such as `floodwall_source_*` is no metric.
    words.filter(|word| word.starts_with(PREFIX) && !word.ends_with('_')).collect()
}

/// Histograms are one metric in the code and three series for who reads them.
fn series_of(name: &str) -> &str {
    let suffixes = ["_bucket", "_count", "_sum"].into_iter();
    suffixes.filter_map(|suffix| name.strip_suffix(suffix)).next().unwrap_or(name)
}

/// The reasons in the code are those in the manual, where each begins a row, a heading or an item.
pub(super) fn reasons(tree: &Tree) -> Vec<Finding> {
    let Some(reason) = tree.file(REASON) else {
        return vec![missing(REASON, 1, "not found: the reasons are in it")];
    };
    let labels = reason_labels(reason);
    if labels.is_empty() {
        return vec![reason.finding(1, "no label found in `enum Reason`: mend this or the rule")];
    }
    let Some(manual) = tree.file(REASONS_DOCS) else {
        return vec![missing(REASONS_DOCS, 1, "not found: it explains every reason")];
    };
    let documented = words([manual], leading_code);
    let mut findings = undocumented(&labels, &documented, REASONS_DOCS);
    findings.extend(absent(&documented, |label| labels.contains_key(label)));
    findings
}

fn reason_labels(file: &SourceFile) -> Words<'_> {
    let declaration = file.lines().skip_while(|(_, line)| !line.contains("enum Reason {"));
    let declaration = declaration.take_while(|(_, line)| line.trim() != "}");
    let code = declaration.filter(|(_, line)| !is_comment(line));
    let labels =
        code.flat_map(|(number, line)| string_literals(line).into_iter().map(move |label| (label, (file, number))));
    labels.collect()
}

/// The code word that begins a row (`| \`x\` |`), a heading (`## \`x\``) or an item (`- \`x\``).
fn leading_code(line: &str) -> Vec<&str> {
    let rest = line.trim_start_matches(['|', '#', '-', '*', ' ']);
    let word = rest.strip_prefix('`').filter(|_| rest.len() < line.len());
    word.and_then(|word| word.split('`').next()).into_iter().collect()
}

fn words<'t>(files: impl IntoIterator<Item = &'t SourceFile>, of_line: impl Fn(&'t str) -> Vec<&'t str>) -> Words<'t> {
    let mut words = Words::new();
    for file in files {
        for (number, line) in file.lines() {
            for word in of_line(line) {
                words.entry(word).or_insert((file, number));
            }
        }
    }
    words
}

fn undocumented(code: &Words<'_>, documented: &Words<'_>, manual: &str) -> Vec<Finding> {
    let unknown = code.iter().filter(|(word, _)| !documented.contains_key(*word));
    let what = |word| format!("`{word}` is not in {manual}: explain it there");
    unknown.map(|(word, (file, line))| file.finding(*line, what(word))).collect()
}

fn absent(documented: &Words<'_>, is_in_code: impl Fn(&str) -> bool) -> Vec<Finding> {
    let gone = documented.iter().filter(|(word, _)| !is_in_code(word));
    let what = |word| format!("`{word}` is not in the code: take it out, or correct its name");
    gone.map(|(word, (file, line))| file.finding(*line, what(word))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{places, tree};
    use super::*;

    const METRICS: &str = "controller/src/metrics.rs";

    #[test]
    fn metrics_in_code_and_manual_are_the_same() {
        let code = "use floodwall_common::x;\nf(\"floodwall_a_total\", \"floodwall_b_bytes\");\n\
            assert(\"floodwall_c{reason=\");\n";
        let manual = "`floodwall_a_total` of `floodwall_*`\n| `floodwall_d_ns` | gone |\n";
        let tree = tree(&[(METRICS, code), (METRICS_DOCS, manual)]);
        assert_eq!(places(&metrics(&tree)), ["controller/src/metrics.rs:2", "docs/metrics.md:2"]);
    }

    #[test]
    fn the_series_of_a_histogram_may_be_explained() {
        let manual = "floodwall_tick_seconds, floodwall_tick_seconds_bucket\n";
        let code = "\"floodwall_tick_seconds\"\n";
        let tree = tree(&[("controller/src/metrics/tick.rs", code), (METRICS_DOCS, manual)]);
        assert_eq!(places(&metrics(&tree)), [""; 0]);
    }

    #[test]
    fn a_manual_that_is_not_there_is_a_finding() {
        assert_eq!(places(&metrics(&tree(&[]))), ["docs/metrics.md:1"]);
        let reason = "pub enum Reason {\n    Passed = 0 => \"passed\",\n}\n";
        assert_eq!(places(&reasons(&tree(&[(REASON, reason)]))), ["docs/reasons.md:1"]);
        assert_eq!(places(&reasons(&tree(&[(REASON, "//! x\n")]))), ["common/src/reason.rs:1"]);
    }

    #[test]
    fn reasons_in_code_and_manual_are_the_same() {
        let code = "pub enum Reason {\n    /// Not \"this\".\n    Passed = 0 => \"passed\",\n    \
            Land = 1 => \"land\",\n}\npub enum Verdict {\n    Pass = 0 => \"pass\",\n}\n";
        let manual = "| `passed` | see `land` |\n## `gone`\nIn text `like` this\n`so` too\n";
        let tree = tree(&[(REASON, code), (REASONS_DOCS, manual)]);
        assert_eq!(places(&reasons(&tree)), ["common/src/reason.rs:4", "docs/reasons.md:2"]);
    }
}
