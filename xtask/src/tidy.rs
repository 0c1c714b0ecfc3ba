//! `tidy`: the house rules that clippy does not know, kept by a program so that nobody has to
//! remember them. It reads the files that git knows or would take, and reports all findings at once.

use std::fmt;
use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::command;

mod abi;
mod leaks;
mod rust;
mod vocabulary;

/// What the rules read: every text file of the repository.
struct Tree {
    files: Vec<SourceFile>,
}

/// A file, by its path from the root of the repository.
struct SourceFile {
    path: String,
    text: String,
}

/// A rule that is broken, and what mends it.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    path: String,
    line: usize,
    what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}: {}", self.path, self.line, self.what)
    }
}

impl Tree {
    fn read() -> Result<Self> {
        let mut git = Command::new("git");
        git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
        let listed = git.current_dir(command::repository()).output();
        let listed = listed.context("cannot start git, which knows the files: install it")?;
        if !listed.status.success() {
            bail!("git lists no files: {}", String::from_utf8_lossy(&listed.stderr).trim());
        }
        let paths = String::from_utf8(listed.stdout).context("a file name is not UTF-8")?;
        Ok(Self { files: paths.split_terminator('\0').filter_map(SourceFile::read).collect() })
    }

    fn file(&self, path: &str) -> Option<&SourceFile> {
        self.files.iter().find(|file| file.path == path)
    }

    fn rust(&self) -> impl Iterator<Item = &SourceFile> {
        self.files.iter().filter(|file| file.path.ends_with(".rs"))
    }
}

impl SourceFile {
    /// None for what is not text, and for a file that is deleted but not yet from the index.
    fn read(path: &str) -> Option<Self> {
        let text = fs::read_to_string(command::repository().join(path)).ok()?;
        Some(Self { path: path.to_owned(), text })
    }

    /// The lines with their numbers, as editors count them.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(index, line)| (index + 1, line))
    }

    fn finding(&self, line: usize, what: impl Into<String>) -> Finding {
        missing(&self.path, line, what)
    }
}

/// A finding about a file that may not even be there.
fn missing(path: &str, line: usize, what: impl Into<String>) -> Finding {
    Finding { path: path.to_owned(), line, what: what.into() }
}

const RULES: [fn(&Tree) -> Vec<Finding>; 10] = [
    rust::file_docs,
    rust::file_length,
    rust::ignored_tests,
    rust::sleeping_tests,
    abi::map_names,
    abi::golden_file,
    vocabulary::metrics,
    vocabulary::reasons,
    leaks::places,
    licences,
];

/// Reports everything that breaks a rule.
pub(crate) fn tidy() -> Result<()> {
    let tree = Tree::read()?;
    let findings: Vec<Finding> = RULES.iter().flat_map(|rule| rule(&tree)).collect();
    for finding in &findings {
        println!("{finding}");
    }
    match findings.len() {
        0 => eprintln!("tidy: {} files, nothing to say", tree.files.len()),
        count => bail!("tidy: {count} findings"),
    }
    Ok(())
}

fn licences(tree: &Tree) -> Vec<Finding> {
    let names = ["LICENSE-APACHE", "LICENSE-MIT"].into_iter();
    let absent = names.filter(|name| tree.file(name).is_none());
    absent.map(|name| missing(name, 1, "the licence is missing: add its full text")).collect()
}

/// The text of the string literals in a line. Escapes end up in it as they are written.
fn string_literals(line: &str) -> Vec<&str> {
    line.split('"').skip(1).step_by(2).collect()
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree of files given as path and text.
    pub(super) fn tree(files: &[(&str, &str)]) -> Tree {
        let file = |(path, text): &(&str, &str)| SourceFile { path: (*path).to_owned(), text: (*text).to_owned() };
        Tree { files: files.iter().map(file).collect() }
    }

    /// The findings of a rule as `path:line`.
    pub(super) fn places(findings: &[Finding]) -> Vec<String> {
        findings.iter().map(|finding| format!("{}:{}", finding.path, finding.line)).collect()
    }

    #[test]
    fn both_licences_have_to_be_there() {
        let tree = tree(&[("LICENSE-MIT", "text")]);
        assert_eq!(places(&licences(&tree)), ["LICENSE-APACHE:1"]);
    }

    #[test]
    fn literals_are_what_is_between_quotes() {
        assert_eq!(string_literals(r#"f("a", 3, "b c")"#), ["a", "b c"]);
        assert!(string_literals("no literal").is_empty());
    }

    #[test]
    fn a_finding_is_shown_so_that_editors_jump_to_it() {
        let finding = missing("a/b.rs", 7, "too long");
        assert_eq!(finding.to_string(), "a/b.rs:7: too long");
    }
}
