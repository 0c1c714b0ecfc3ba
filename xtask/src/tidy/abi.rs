//! Rules for the boundary between the kernel half and the controller: names that the kernel takes
//! whole, and a golden file that cannot be changed without the version. Whether the golden file
//! tells the truth is a test in `common`.

use super::{Finding, SourceFile, Tree, is_comment, missing, string_literals};

const ABI: &str = "common/src/abi.rs";
const GOLDEN: &str = "common/abi.golden";
/// `BPF_OBJ_NAME_LEN` is 16 with the closing zero; the kernel cuts off what is longer.
const LONGEST_MAP_NAME: usize = 15;

pub(super) fn map_names(tree: &Tree) -> Vec<Finding> {
    let Some(abi) = tree.file(ABI) else {
        return vec![missing(ABI, 1, "not found: the names of the maps are checked in it")];
    };
    let names = map_names_in(abi);
    if names.is_empty() {
        return vec![abi.finding(1, "no map name found in `pub mod map`: mend this or the rule")];
    }
    let long = names.into_iter().filter(|(_, name)| name.len() > LONGEST_MAP_NAME);
    let what = |name| format!("the kernel cuts map names at {LONGEST_MAP_NAME}: shorten `{name}`");
    long.map(|(line, name)| abi.finding(line, what(name))).collect()
}

fn map_names_in(abi: &SourceFile) -> Vec<(usize, &str)> {
    let module = abi.lines().skip_while(|(_, line)| !line.starts_with("pub mod map {"));
    let module = module.take_while(|(_, line)| *line != "}");
    let constants = module.filter(|(_, line)| line.contains(": &str =") && !is_comment(line));
    let names = constants.map(|(number, line)| (number, string_literals(line)));
    names.filter_map(|(number, names)| Some((number, *names.first()?))).collect()
}

pub(super) fn golden_file(tree: &Tree) -> Vec<Finding> {
    let Some(version) = tree.file(ABI).and_then(abi_version) else {
        return vec![missing(ABI, 1, "no `pub const ABI_VERSION: u32 = N;` found")];
    };
    let Some(golden) = tree.file(GOLDEN) else {
        return vec![missing(GOLDEN, 1, "not found: the layout test of `common` writes it")];
    };
    let Some((line, recorded)) = golden_version(golden) else {
        return vec![golden.finding(1, "no line `abi-version: N`: write it anew")];
    };
    if recorded == version {
        return vec![];
    }
    let what = format!(
        "is of version {recorded}, but ABI_VERSION is {version}: raise the version with every \
         change of the layout, and write this file anew with it"
    );
    vec![golden.finding(line, what)]
}

fn abi_version(abi: &SourceFile) -> Option<&str> {
    let values = abi.text.lines().map(|line| line.strip_prefix("pub const ABI_VERSION: u32 = "));
    values.flatten().next()?.strip_suffix(';')
}

fn golden_version(golden: &SourceFile) -> Option<(usize, &str)> {
    let mut lines = golden.lines();
    lines.find_map(|(number, line)| Some((number, line.strip_prefix("abi-version:")?.trim())))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{places, tree};
    use super::*;

    const MAPS: &str = "pub const ABI_VERSION: u32 = 3;\npub mod map {\n    /// \"Why this name is\"\n    \
        pub const A: &str = \"FIFTEEN_LETTERS\";\n    pub const B: &str = \"SIXTEEN__LETTERS\";\n}\n\
        pub const TITLE: &str = \"not the name of any map\";\n";

    #[test]
    fn map_names_may_have_fifteen_letters() {
        assert_eq!(places(&map_names(&tree(&[(ABI, MAPS)]))), ["common/src/abi.rs:5"]);
    }

    #[test]
    fn a_rule_that_finds_nothing_to_check_says_so() {
        assert_eq!(places(&map_names(&tree(&[]))), ["common/src/abi.rs:1"]);
        assert_eq!(places(&map_names(&tree(&[(ABI, "//! x\n")]))), ["common/src/abi.rs:1"]);
        assert_eq!(places(&golden_file(&tree(&[(ABI, "//! x\n")]))), ["common/src/abi.rs:1"]);
        assert_eq!(places(&golden_file(&tree(&[(ABI, MAPS)]))), ["common/abi.golden:1"]);
    }

    #[test]
    fn the_golden_file_is_of_the_version_in_force() {
        let with = |golden| golden_file(&tree(&[(ABI, MAPS), (GOLDEN, golden)]));
        assert!(with("# layout\nabi-version: 3\n").is_empty());
        assert_eq!(places(&with("# layout\nabi-version: 2\n")), ["common/abi.golden:2"]);
        assert_eq!(places(&with("# layout\n")), ["common/abi.golden:1"]);
    }
}
