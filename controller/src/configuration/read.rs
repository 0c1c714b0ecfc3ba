//! Reading the files: where they are, where in them something is wrong, and who said what.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use floodwall_common::limits::{Limits, Rate};

use super::{Configuration, Limit, List, Quantity, Rates, SourceGroup};
use crate::exit::{Exit, Failure};
use crate::prefixes;

/// Where the file is unless somebody says otherwise.
pub const DEFAULT_PATH: &str = "/etc/floodwall/floodwall.toml";
/// The directory beside it, whose `*.toml` are read after it.
const DIRECTORY: &str = "conf.d";

/// Where each key was said last: file and line, by its name with dots.
pub type Origins = BTreeMap<String, String>;

/// What was read.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// All of it together.
    pub configuration: Configuration,
    /// Where it was said.
    pub origins: Origins,
    /// The files, in the order in which they were read.
    pub files: Vec<PathBuf>,
}

impl Source {
    /// Reads a file and the directory beside it. Where no file is named and the usual one is not there, that is `None`.
    ///
    /// # Errors
    /// Where a file cannot be read, or says what cannot be: file, line, column, and what was perhaps meant.
    pub fn find(named: Option<&Path>) -> anyhow::Result<Option<Self>> {
        match named {
            Some(path) => Self::read(path).map(Some),
            None if Path::new(DEFAULT_PATH).exists() => Self::read(Path::new(DEFAULT_PATH)).map(Some),
            None => Ok(None),
        }
    }

    /// Reads this file and the directory beside it.
    ///
    /// # Errors
    /// As with [`Self::find`].
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let mut files = vec![path.to_owned()];
        files.extend(beside(path)?);
        let mut source = Self::default();
        for file in files {
            let text = read_once(&file)?;
            let configuration = parse(&file, &text)?;
            source.origins.extend(origins(&file, &text));
            source.configuration.take(configuration);
            source.files.push(file);
        }
        source.check()?;
        Ok(source)
    }

    /// The same, of a file alone that was read already.
    ///
    /// # Errors
    /// As with [`Self::find`].
    pub(super) fn read_alone(file: &Path, text: &str) -> anyhow::Result<Self> {
        let (configuration, origins) = (parse(file, text)?, origins(file, text));
        let source = Self { configuration, origins, files: vec![file.to_owned()] };
        source.check()?;
        Ok(source)
    }

    /// The same, made of a text instead of a file: for tests.
    ///
    /// # Errors
    /// As with [`Self::find`].
    pub fn of_text(text: &str) -> anyhow::Result<Self> {
        Ok(Self { files: Vec::new(), ..Self::read_alone(Path::new("floodwall.toml"), text)? })
    }

    /// What each file by itself cannot know to be wrong.
    fn check(&self) -> Result<(), Failure> {
        for (key, limits) in self.configuration.wanted_limits().unwrap_or_default() {
            let of = format!("limits.{}", key.name.label());
            let limits = limits.map_err(|text| self.wrong(&of, &text))?;
            let blocks = [limits.packets, limits.bytes].contains(&Rate::Block);
            if blocks && key.to_string() != key.name.label() {
                return Err(self.wrong(&of, "only the limit per source can block all of a class"));
            }
            if blocks && key.name == floodwall_common::limits::LimitName::Allowed {
                return Err(
                    self.wrong(&of, "allowed sources cannot be blocked: it is what keeps you from being locked out")
                );
            }
            crate::dataplane::check_limits(limits).map_err(|(unit, error)| {
                self.wrong(&of, &crate::control::refuse_rate(key, limits, unit, error).error)
            })?;
        }
        if let Some((name, _)) = self.configuration.limits.iter().flatten().find(|(_, limit)| has_zero(limit)) {
            let of = format!("limits.{}", name.0.label());
            return Err(
                self.wrong(&of, "0 would block all of it: write \"block\" if that is meant, \"off\" for no limit")
            );
        }
        let services = self.configuration.wanted_services().unwrap_or_default();
        let mut known = Vec::new();
        for view in &services {
            let of = format!("services.{}", view.name);
            let service = view.service().map_err(|text| self.wrong(&of, &text))?;
            for cap in [service.cap, service.connections] {
                crate::dataplane::check_limits(Limits { packets: cap, bytes: Rate::Off })
                    .map_err(|_| self.wrong(&of, &format!("a cap of {cap} is out of range")))?;
            }
            crate::control::refuse_shared_ports(&service, &known).map_err(|failure| self.wrong(&of, &failure.error))?;
            known.push(service);
        }
        super::groups::check(self)?;
        super::signatures::check(self)?;
        if let Some(answers) = self.configuration.cookies.and_then(|cookies| cookies.answers_pps) {
            let answers = Rate::Limit { per_second: answers, burst: answers };
            crate::dataplane::check_limits(Limits { packets: answers, bytes: Rate::Off })
                .map_err(|_| self.wrong("cookies.answers_pps", &format!("{answers} is out of range")))?;
        }
        for (section, list) in [("allow", &self.configuration.allow), ("deny", &self.configuration.deny)] {
            let prefixes = list.as_ref().map(List::all).transpose()?.unwrap_or_default();
            if let Some(prefix) = prefixes.iter().find(|prefix| prefix.prefix_len() < 8) {
                let text = format!("{prefix} is nearly everybody: that is not done by a file");
                return Err(self.wrong(section, &text).hint(format!("floodwall {section} add {prefix} --force")));
            }
        }
        if let Some(prefix) = self.configuration.monitors().iter().find(|prefix| prefix.prefix_len() < 8) {
            return Err(self.wrong("monitors", &format!("{prefix} is nearly everybody")));
        }
        Ok(())
    }

    /// What is wrong with a key, and where that stands.
    pub(super) fn wrong(&self, key: &str, text: &str) -> Failure {
        let under = format!("{key}.");
        let place = self.origins.iter().find(|(name, _)| *name == key || name.starts_with(&under));
        let place = place.map(|(_, place)| format!("{place}: ")).unwrap_or_default();
        Failure::new(Exit::Configuration, format!("{place}{key}: {text}. Nothing was changed"))
    }
}

fn has_zero(limit: &Limit) -> bool {
    let wider = [&limit.subnet, &limit.network].into_iter().flatten();
    let of_wider = wider.flat_map(|wider| [wider.pps, wider.bps]);
    [limit.pps, limit.bps].into_iter().chain(of_wider).any(|rate| rate == Some(Quantity::PerSecond(0)))
}

impl List {
    /// All prefixes, those in files too.
    pub(super) fn all(&self) -> Result<Vec<ipnet::IpNet>, Failure> {
        let mut all: Vec<_> = self.prefixes.iter().map(|prefix| prefix.0).collect();
        for file in &self.files {
            all.extend(prefixes::read_file(file)?);
        }
        Ok(all)
    }
}

impl Configuration {
    /// Takes what a later file says.
    pub(super) fn take(&mut self, later: Self) {
        fn value<T>(of: &mut Option<T>, later: Option<T>) {
            if later.is_some() {
                *of = later;
            }
        }
        fn map<K: Ord, V>(of: &mut Option<BTreeMap<K, V>>, later: Option<BTreeMap<K, V>>, take: impl Fn(&mut V, V)) {
            // Also where it has no keys: then the section is all at its defaults.
            let Some(later) = later else { return };
            let of = of.get_or_insert_default();
            for (key, later) in later {
                match of.entry(key) {
                    Entry::Vacant(place) => drop(place.insert(later)),
                    Entry::Occupied(mut place) => take(place.get_mut(), later),
                }
            }
        }
        fn list(of: &mut Option<List>, later: Option<List>) {
            if let Some(later) = later {
                let all = of.get_or_insert_default();
                all.prefixes.extend(later.prefixes);
                all.files.extend(later.files);
            }
        }
        value(&mut self.interfaces, later.interfaces);
        value(&mut self.allow_generic, later.allow_generic);
        value(&mut self.mode, later.mode);
        value(&mut self.metrics, later.metrics);
        value(&mut self.metrics_public, later.metrics_public);
        value(&mut self.api, later.api);
        value(&mut self.api_token_file, later.api_token_file);
        value(&mut self.read_group, later.read_group);
        value(&mut self.log, later.log);
        value(&mut self.respond, later.respond);
        map(&mut self.respond_to, later.respond_to, |of, later| *of = later);
        value(&mut self.probe, later.probe);
        value(&mut self.canary, later.canary);
        value(&mut self.auto_allow, later.auto_allow);
        value(&mut self.monitors, later.monitors);
        if let Some(later) = later.contacts {
            let of = self.contacts.get_or_insert_default();
            value(&mut of.provider, later.provider);
            value(&mut of.operator, later.operator);
        }
        map(&mut self.limits, later.limits, Limit::take);
        map(&mut self.policy, later.policy, |of, later| *of = later);
        // A service is named whole: its ports have to be.
        map(&mut self.services, later.services, |of, later| *of = later);
        map(&mut self.groups, later.groups, SourceGroup::take);
        // So is a signature: its fields belong together.
        map(&mut self.signatures, later.signatures, |of, later| *of = later);
        match (&mut self.amplifiers, later.amplifiers) {
            (Some(of), Some(later)) => of.take(later),
            (of, later) => value(of, later),
        }
        match (&mut self.cookies, later.cookies) {
            (Some(of), Some(later)) => {
                of.mode = later.mode;
                value(&mut of.answers_pps, later.answers_pps);
            }
            (of, later) => value(of, later),
        }
        list(&mut self.allow, later.allow);
        list(&mut self.deny, later.deny);
    }
}

/// A rate and its burst: a later rate without a burst begins anew.
fn take_rate(of: (&mut Option<Quantity>, &mut Option<u64>), later: (Option<Quantity>, Option<u64>)) {
    if later.0.is_some() {
        (*of.0, *of.1) = later;
    } else if later.1.is_some() {
        *of.1 = later.1;
    }
}

/// What a later file says of rates.
pub(super) fn take_rates(of: &mut Rates, later: Rates) {
    take_rate((&mut of.pps, &mut of.burst), (later.pps, later.burst));
    take_rate((&mut of.bps, &mut of.byte_burst), (later.bps, later.byte_burst));
}

impl Limit {
    /// Takes what a later file says of it.
    fn take(&mut self, later: Self) {
        take_rate((&mut self.pps, &mut self.burst), (later.pps, later.burst));
        take_rate((&mut self.bps, &mut self.byte_burst), (later.bps, later.byte_burst));
        for (of, later) in [(&mut self.subnet, later.subnet), (&mut self.network, later.network)] {
            if let Some(later) = later {
                take_rates(of.get_or_insert_default(), *later);
            }
        }
    }
}

/// The files of the directory beside a file, by name.
fn beside(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let directory = path.parent().unwrap_or(Path::new(".")).join(DIRECTORY);
    if !directory.is_dir() {
        return Ok(Vec::new());
    }
    let read = || -> std::io::Result<Vec<PathBuf>> {
        std::fs::read_dir(&directory)?.map(|entry| entry.map(|entry| entry.path())).collect()
    };
    let mut files = read().with_context(|| format!("cannot read {}", directory.display()))?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    Ok(files)
}

/// The text of a file that only its owner, and he only if he is root or whoever runs this, can have written.
pub(super) fn read_once(path: &Path) -> Result<String, Failure> {
    let name = path.display();
    let refuse = |text: String| Failure::new(Exit::Configuration, text);
    let mut file = File::open(path).map_err(|error| refuse(format!("cannot read {name}: {error}")))?;
    // Of what was opened, so that nobody puts another in its place meanwhile.
    let metadata = file.metadata().map_err(|error| refuse(format!("cannot read {name}: {error}")))?;
    if metadata.mode() & 0o002 != 0 {
        return Err(refuse(format!("{name} can be written by everybody")).hint(format!("chmod o-w {name}")));
    }
    if ![0, nix::unistd::getuid().as_raw()].contains(&metadata.uid()) {
        let text = format!("{name} belongs to user {}, not to root", metadata.uid());
        return Err(refuse(text).hint(format!("chown root {name}")));
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(|error| refuse(format!("cannot read {name}: {error}")))?;
    Ok(text)
}

fn parse(file: &Path, text: &str) -> Result<Configuration, Failure> {
    toml::from_str(text).map_err(|error| {
        let message = error.message().trim_end().replace('\n', ", ");
        let (line, column) = place(text, error.span().unwrap_or_default());
        let failure = Failure::new(
            Exit::Configuration,
            format!("{}:{line}:{column}: {message}. Nothing was changed", file.display()),
        );
        match meant(&message) {
            Some(meant) => failure.hint(format!("did you mean `{meant}`?")),
            None => failure,
        }
    })
}

/// Line and column of a place, from one on.
fn place(text: &str, span: Range<usize>) -> (usize, usize) {
    let before = text.get(..span.start).unwrap_or(text);
    let begun = before.rfind('\n').map_or(0, |at| at + 1);
    (before.matches('\n').count() + 1, before[begun..].chars().count() + 1)
}

/// The nearest of the names that the parser says it knows.
fn meant(message: &str) -> Option<&str> {
    let (unknown, known) = message.strip_prefix("unknown field ")?.split_once(", expected ")?;
    let known = known.split('`').skip(1).step_by(2);
    nearest(unknown.trim_matches('`'), known)
}

fn nearest<'a>(text: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let ranked = known.map(|name| (strsim::damerau_levenshtein(text, name), name));
    ranked.min().filter(|(distance, name)| *distance <= name.len().max(3) / 3 + 1).map(|(_, name)| name)
}

/// What is said of a word that is none of these.
pub(super) fn not_one_of(what: &str, text: &str, known: &[&str]) -> String {
    let meant = nearest(text, known.iter().copied()).map(|name| format!(": did you mean `{name}`?"));
    format!("no {what} `{text}`{} (have: {})", meant.unwrap_or_default(), known.join(", "))
}

/// Where each key of a file stands.
fn origins(file: &Path, text: &str) -> Origins {
    let mut found = Origins::new();
    if let Ok(document) = toml_edit::Document::parse(text) {
        walk(document.as_table(), "", &mut |key, span| {
            found.insert(key, format!("{}:{}", file.display(), place(text, span).0));
        });
    }
    found
}

fn walk(table: &dyn toml_edit::TableLike, above: &str, found: &mut dyn FnMut(String, Range<usize>)) {
    for (name, item) in table.iter() {
        let key = if above.is_empty() { name.to_owned() } else { format!("{above}.{name}") };
        match item.as_table_like() {
            Some(inner) => walk(inner, &key, found),
            None => {
                let span = table.key(name).and_then(toml_edit::Key::span).or_else(|| item.span());
                found(key, span.unwrap_or_default());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        Source::of_text(text).expect_err(text).to_string()
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place_and_what_was_perhaps_meant() {
        let cases = [
            (
                "mode = \"enforce\"\ninterfacs = [\"eth0\"]",
                "floodwall.toml:2:1: unknown field `interfacs`",
                "`interfaces`?",
            ),
            ("[limits.udp]\npps = 5\nburts = 7", "floodwall.toml:3:1: unknown field `burts`", "`burst`?"),
            ("[limits.upd]\npps = 5", "floodwall.toml:1:9: no limit `upd`", "did you mean `udp`?"),
            ("[policy]\nmartain = \"drop\"", "floodwall.toml:2:1: no reason", "did you mean `martian`?"),
            ("mode = \"enfroce\"", "floodwall.toml:1:8: unknown variant", "enforce"),
            ("[limits.udp]\npps = -5", "floodwall.toml:2:7: invalid value", "a whole number, \"off\" or \"block\""),
            ("[limits.udp]\npps = 0", "floodwall.toml:2: limits.udp: 0 would block", "\"block\""),
            ("[limits.udp]\nbps = 5", "floodwall.toml:2: limits.udp: udp: 5", "out of range"),
            ("[limits.allowed]\npps = \"block\"", "floodwall.toml:2: limits.allowed: allowed", "locked out"),
            ("[services.web]\nports = [\"443\"]", "floodwall.toml:2: services.web: '443'", "tcp/443"),
            (
                "[deny]\nprefixes = [\"10.0.0.0/33\"]",
                "floodwall.toml:2:12: '10.0.0.0/33' is not an address",
                "203.0.113.0/24",
            ),
            ("[deny]\nprefixes = [\"0.0.0.0/0\"]", "floodwall.toml:2: deny: 0.0.0.0/0 is nearly everybody", "--force"),
            ("[deny]\nfiles = [\"/nowhere/x.txt\"]", "cannot read /nowhere/x.txt", "No such file"),
            ("mode = ", "floodwall.toml:1:", ""),
        ];
        for (text, place, meant) in cases {
            let said = refused(text);
            assert!(said.contains(place) && said.contains(meant), "{text:?}: {said}");
        }
    }

    #[test]
    fn what_is_no_file_of_ours_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let directory = std::env::temp_dir().join(format!("floodwall-read-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        let path = directory.join("floodwall.toml");
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).expect("written");
            Source::read(&path)
        };
        assert_eq!(read(b"").expect("an empty file says nothing").configuration, Configuration::default());
        assert!(read(b"\xef\xbb\xbfmode = \"enforce\"\n").is_ok(), "with a byte order mark");
        for bytes in [&b"m\0o\0d\0e\0"[..], b"\x7fELF\x02\x01\xff", b"mode = \"enf"] {
            let error = read(bytes).expect_err("it is none");
            assert!(error.to_string().contains("floodwall.toml"), "{error}");
        }
        read(b"mode = \"enforce\"").expect("it is right");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).expect("set");
        let error = Source::read(&path).expect_err("everybody can write it").to_string();
        assert!(error.contains("chmod o-w"), "{error}");
        std::fs::remove_dir_all(directory).expect("removed");
    }

    #[test]
    fn a_later_file_wins_key_by_key() {
        let parse = |text: &str| Source::of_text(text).expect(text).configuration;
        let mut all = parse(
            "mode = \"monitor\"\n[limits.udp]\npps = 5\n[limits.tcp]\npps = 7\n[allow]\nprefixes = [\"192.0.2.1\"]",
        );
        all.take(parse("mode = \"enforce\"\n[limits.udp]\npps = 6\nburst = 9\n[allow]\nprefixes = [\"192.0.2.2\"]"));
        let expected = parse(
            "mode = \"enforce\"\n[limits.udp]\npps = 6\nburst = 9\n[limits.tcp]\npps = 7\n[allow]\nprefixes = [\"192.0.2.1\", \"192.0.2.2\"]",
        );
        assert_eq!(all, expected);
        // What a later file does not name of a limit stays; a rate comes with its burst.
        all.take(parse("[limits.udp]\nbps = 90000\n[limits.udp.subnet]\npps = 70\n[limits.tcp]\npps = 8"));
        let expected = parse(
            "mode = \"enforce\"\n[limits.udp]\npps = 6\nburst = 9\nbps = 90000\nsubnet = { pps = 70 }\n[limits.tcp]\npps = 8\n\
             [allow]\nprefixes = [\"192.0.2.1\", \"192.0.2.2\"]",
        );
        assert_eq!(all, expected);
    }

    #[test]
    fn every_key_knows_its_line() {
        let origins = Source::of_text("mode = \"enforce\"\n\n[limits]\nudp = { pps = 5,\n  burst = 7 }\n")
            .expect("it is right")
            .origins;
        assert_eq!(origins["mode"], "floodwall.toml:1");
        assert_eq!(
            (origins["limits.udp.pps"].as_str(), origins["limits.udp.burst"].as_str()),
            ("floodwall.toml:4", "floodwall.toml:5")
        );
    }
}
