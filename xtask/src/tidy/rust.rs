//! Rules for every Rust file: its opening words, its length, and honest tests.

use super::{Finding, SourceFile, Tree, is_comment};

const MOST_LINES: usize = 600;

/// Each file opens with what it is for, and what it deliberately does not do.
pub(super) fn file_docs(tree: &Tree) -> Vec<Finding> {
    let silent = tree.rust().filter(|file| !file.text.starts_with("//!"));
    let what = "say in `//!` on the first line what this file is for";
    silent.map(|file| file.finding(1, what)).collect()
}

pub(super) fn file_length(tree: &Tree) -> Vec<Finding> {
    let long = tree.rust().map(|file| (file, file.text.lines().count()));
    let long = long.filter(|(_, lines)| *lines > MOST_LINES);
    let what = |lines| format!("{lines} lines, more than {MOST_LINES}: split the file by purpose");
    long.map(|(file, lines)| file.finding(MOST_LINES + 1, what(lines))).collect()
}

/// A test that is skipped is a promise that nobody keeps.
pub(super) fn ignored_tests(tree: &Tree) -> Vec<Finding> {
    let in_file = |file| {
        let ignored = SourceFile::lines(file);
        let ignored = ignored.filter(|(_, line)| line.trim_start().starts_with("#[ignore"));
        ignored.map(|(line, _)| file.finding(line, "run this test, mend it or delete it"))
    };
    tree.rust().flat_map(in_file).collect()
}

/// A test that sleeps is slow on one machine and wrong on another. It waits for a condition, with a
/// deadline; the pause between two looks at it is marked with `// condition: <what is awaited>`.
pub(super) fn sleeping_tests(tree: &Tree) -> Vec<Finding> {
    tree.rust().flat_map(unexplained_sleeps).collect()
}

fn unexplained_sleeps(file: &SourceFile) -> Vec<Finding> {
    let lines: Vec<&str> = file.text.lines().collect();
    let first_test_line = first_test_line(file, &lines);
    let sleeps = (first_test_line..lines.len()).filter(|&index| calls_sleep(lines[index]));
    let unexplained = sleeps.filter(|&index| !names_condition(&lines, index));
    let what = "wait for a condition with a deadline, and name it in `// condition: …` here";
    unexplained.map(|index| file.finding(index + 1, what)).collect()
}

fn first_test_line(file: &SourceFile, lines: &[&str]) -> usize {
    if file.path.split('/').any(|folder| folder == "tests") {
        return 0;
    }
    let opens_tests = |pair: &[&str]| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ");
    lines.windows(2).position(opens_tests).unwrap_or(lines.len())
}

fn calls_sleep(line: &str) -> bool {
    let starts_a_name = |before: &str| !before.ends_with(|l: char| l.is_alphanumeric() || l == '_');
    let calls = |name| line.match_indices(name).any(|(at, _)| starts_a_name(&line[..at]));
    !is_comment(line) && ["sleep(", "sleep_until(", "sleep_ms("].into_iter().any(calls)
}

/// Whether the line, or the comment right above it, names the condition.
fn names_condition(lines: &[&str], index: usize) -> bool {
    let above = lines[..index].iter().rev().take_while(|line| is_comment(line));
    above.chain([&lines[index]]).any(|line| line.contains("// condition: "))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{places, tree};
    use super::*;

    #[test]
    fn a_file_without_opening_words_is_found() {
        let tree = tree(&[("a.rs", "//! Why.\n"), ("b.rs", "use x;\n//! Late.\n"), ("c.md", "x")]);
        assert_eq!(places(&file_docs(&tree)), ["b.rs:1"]);
    }

    #[test]
    fn the_length_is_bounded_to_the_line() {
        let (long, longer) = ("x\n".repeat(MOST_LINES), "x\n".repeat(MOST_LINES + 1));
        let tree = tree(&[("a.rs", &long), ("b.rs", &longer), ("c.json", &longer)]);
        assert_eq!(places(&file_length(&tree)), ["b.rs:601"]);
    }

    #[test]
    fn an_ignored_test_is_found() {
        let text = "#[test]\n    #[ignore = \"later\"]\nfn a() {}\n// #[ignore]\n";
        assert_eq!(places(&ignored_tests(&tree(&[("a.rs", text)]))), ["a.rs:2"]);
    }

    /// A line that sleeps, in pieces, so that the rule does not find it here.
    const NAP: &str = concat!("thread::sl", "eep(POLL);\n");

    #[test]
    fn a_sleep_in_a_test_needs_its_condition() {
        let explained = format!("// condition: the link is up\n// (soon)\n{NAP}");
        let bare = format!("//! x\n{NAP}");
        let tree = tree(&[("tests/src/a.rs", &bare), ("tests/src/b.rs", &explained)]);
        assert_eq!(places(&sleeping_tests(&tree)), ["tests/src/a.rs:2"]);
    }

    #[test]
    fn the_product_may_sleep_and_its_unit_tests_may_not() {
        let text = format!("{NAP}#[cfg(test)]\nmod tests {{\n    {NAP}}}\n");
        let tree = tree(&[("a/src/b.rs", &text), ("a/src/untested.rs", NAP)]);
        assert_eq!(places(&sleeping_tests(&tree)), ["a/src/b.rs:4"]);
    }

    #[test]
    fn what_only_looks_like_a_sleep_is_left() {
        let text = concat!("no_sl", "eep();\n// sl", "eep(1)\nsl", "eepy(2);\n");
        assert!(sleeping_tests(&tree(&[("tests/a.rs", text)])).is_empty());
    }
}
