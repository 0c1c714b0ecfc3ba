//! Rules for what must not get into the repository from the machine that it was written on: paths
//! of that machine, and the hosts that packages came from, which are every user's own choice.

use super::{Finding, SourceFile, Tree};

/// In pieces, so that this file does not name them either.
const HOSTS: [&str; 10] = [
    concat!("crates", ".io"),
    concat!("static.rust-lang", ".org"),
    concat!("deb.debian", ".org"),
    concat!("security.debian", ".org"),
    concat!("snapshot.debian", ".org"),
    concat!("archive.ubuntu", ".com"),
    concat!("pypi", ".org"),
    concat!("pythonhosted", ".org"),
    concat!("registry.npmjs", ".org"),
    concat!("proxy.golang", ".org"),
];
const FOLDERS: [&str; 2] = [concat!("/ro", "ot"), concat!("/wo", "rk")];
/// What cargo writes into lock files for the public index, whatever mirror it was read from.
const PUBLIC_INDEX: &str = concat!("source = \"registry+https://github.com/rust-lang/crates", ".io-index\"");

pub(super) fn places(tree: &Tree) -> Vec<Finding> {
    tree.files.iter().flat_map(places_in).collect()
}

fn places_in(file: &SourceFile) -> Vec<Finding> {
    let told = file.lines().filter(|(_, line)| *line != PUBLIC_INDEX);
    let told = told.filter_map(|(number, line)| Some((number, place_in(file, line)?)));
    let what = |place| format!("`{place}` is a place of one machine or one registry: take it out");
    told.map(|(number, place)| file.finding(number, what(place))).collect()
}

fn place_in<'l>(file: &SourceFile, line: &'l str) -> Option<&'l str> {
    if file.path.ends_with("Cargo.lock") {
        return line.starts_with("source = ").then_some(line);
    }
    let host = HOSTS.into_iter().find_map(|host| Some(&line[line.find(host)?..][..host.len()]));
    host.or_else(|| FOLDERS.into_iter().find_map(|folder| folder_in(line, folder)))
}

/// `folder` as a path of its own or the beginning of one, not as a part of another.
fn folder_in<'l>(line: &'l str, folder: &str) -> Option<&'l str> {
    let is_part_of_name = |letter: char| letter.is_alphanumeric() || "._-~$}*".contains(letter);
    let stands_alone = |at: usize| {
        let after = &line[at + folder.len()..];
        !line[..at].ends_with(is_part_of_name) && !after.starts_with(is_part_of_name)
    };
    let (at, found) = line.match_indices(folder).find(|(at, _)| stands_alone(*at))?;
    let path_end = line[at..].find(|l: char| l.is_whitespace() || "\"'`)>,;:".contains(l));
    Some(path_end.map_or(found, |end| &line[at..at + end]))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{places as found, tree};
    use super::*;

    #[test]
    fn the_hosts_of_registries_are_found() {
        let text = format!("# x\nFROM https://{}/debian\n", HOSTS[2]);
        assert_eq!(found(&places(&tree(&[("deploy/a", &text)]))), ["deploy/a:2"]);
    }

    #[test]
    fn the_folders_of_a_machine_are_found_where_they_begin_a_path() {
        let [home, work] = FOLDERS;
        for line in [format!("cd {work}/main"), format!("\"{home}\""), format!("file://{home}/.x")] {
            assert_eq!(found(&places(&tree(&[("a.md", &line)]))), ["a.md:1"], "{line}");
        }
        for line in [format!("./net{work}"), format!("{work}ers/a"), format!("src{home}/b")] {
            assert!(places(&tree(&[("a.md", &line)])).is_empty(), "{line}");
        }
    }

    #[test]
    fn a_lock_file_names_the_public_index_only() {
        let mirror = "source = \"registry+https://mirror.example/index\"\n";
        let text = format!("{PUBLIC_INDEX}\n{mirror}");
        assert_eq!(found(&places(&tree(&[("fuzz/Cargo.lock", &text)]))), ["fuzz/Cargo.lock:2"]);
    }
}
