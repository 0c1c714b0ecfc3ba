//! `floodwall replay` as people and programs see it: lines of JSON of the documented shape, a summary at the end, and what is
//! said of files that are no captures.

#![expect(clippy::unwrap_used, reason = "the helpers of tests fail as the tests do: by a panic")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use floodwall::detect::{Vector, Verdict};
use floodwall_tests::captures::made::{HOST, Made, write};
use floodwall_tests::captures::packets::{Ends, SYN, Segment, TCP, tcp};
use floodwall_tests::daemon::binary;
use serde_json::Value;

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A directory of files to replay, gone with this value.
struct Files(PathBuf);

impl Files {
    fn new() -> Self {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("floodwall-replay-{}-{number}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        Self(directory)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn with(&self, name: &str, bytes: &[u8]) -> PathBuf {
        std::fs::write(self.path(name), bytes).unwrap();
        self.path(name)
    }

    /// A flood of bare SYNs of one second.
    fn flood(&self, name: &str) -> PathBuf {
        let mut made = Made::new(1);
        made.flood(0.0..1.0, 2_000.0, |random| {
            let segment = Segment { ports: (random.port(), 443), flags: SYN, ..Segment::default() };
            (Ends { source: random.address(), destination: HOST, hops: 242 }, TCP, 0, tcp(&segment))
        });
        write(&self.path(name), &made.frames()).unwrap();
        self.path(name)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What was said, and how it ended.
struct Said {
    exit: Option<i32>,
    out: String,
    error: String,
}

impl Said {
    fn lines(&self) -> Vec<Value> {
        self.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn replay(file: &Path, more: &[&str]) -> Said {
    let output = Command::new(binary().unwrap()).arg("replay").arg(file).args(more).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { exit: output.status.code(), out: text(output.stdout), error: text(output.stderr) }
}

fn sum(counts: &Value) -> u64 {
    counts.as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum()
}

#[test]
fn lines_have_the_documented_shape() {
    let files = Files::new();
    let said = replay(&files.flood("flood.pcap"), &["--json"]);
    assert_eq!((said.exit, said.error.as_str()), (Some(0), ""));
    let lines = said.lines();
    let (last, changes) = lines.split_last().unwrap();
    assert!(!changes.is_empty());
    for change in changes {
        let keys: Vec<_> = change.as_object().unwrap().keys().map(String::as_str).collect();
        let documented =
            ["actions", "confidence", "dropped", "passed", "reasons", "t", "vector", "vectors", "verdict", "who"];
        assert_eq!(keys, documented, "{change}");
        assert!(Verdict::ALL.iter().any(|verdict| change["verdict"] == verdict.label()), "{change}");
        assert!(Vector::ALL.iter().any(|vector| change["vector"] == vector.label()), "{change}");
        assert_eq!(change["vectors"][0], change["vector"], "{change}");
        assert!((0.8..=1.0).contains(&change["confidence"].as_f64().unwrap()), "{change}");
        let reasons = change["reasons"].as_array().unwrap();
        assert!(reasons.len() == 3 && reasons.iter().all(|reason| reason.as_str().is_some_and(|text| text.len() > 10)));
        assert!(change["actions"].is_array(), "{change}");
        assert_eq!(change["who"], serde_json::json!([]), "{change}");
    }
    let first = &changes[0];
    assert_eq!((&first["verdict"], &first["vector"]), (&"attack".into(), &"syn-flood".into()));
    assert!(first["t"].as_f64().unwrap() <= 0.5 && first["dropped"] == 0, "{first}");
    let summary = &last["summary"];
    assert_eq!(last.as_object().unwrap().len(), 1, "{last}");
    assert_eq!(summary["protected"], serde_json::json!([HOST.to_string()]));
    let (dropped, passed) = (summary["dropped"].as_u64().unwrap(), summary["passed"].as_u64().unwrap());
    assert!(dropped > passed, "{summary}");
    assert_eq!(Some(dropped + passed), summary["packets"].as_u64());
    assert_eq!((sum(&summary["dropped_by_reason"]), sum(&summary["passed_by_reason"])), (dropped, passed));
    assert_eq!(summary["verdicts"]["normal"], 0.0);
    assert_eq!(summary["verdicts"]["attack"], first["t"]);
    assert_eq!(summary["vectors"]["syn-flood"], first["t"]);
    assert_eq!(summary["sent"], 0);
    assert!((0.9..1.0).contains(&summary["duration_s"].as_f64().unwrap()), "{summary}");
}

/// Each line is a change: of the verdict, of its kinds, or of what is done. The end of an attack is one too.
#[test]
fn each_line_is_a_change_and_the_end_is_one() {
    let files = Files::new();
    let mut made = Made::new(2);
    made.flood(0.0..1.0, 2_000.0, |random| {
        let segment = Segment { ports: (random.port(), 443), flags: SYN, ..Segment::default() };
        (Ends { source: random.address(), destination: HOST, hops: 242 }, TCP, 0, tcp(&segment))
    });
    made.crowd(40.0..42.0, 20.0, 1.0);
    write(&files.path("over.pcap"), &made.frames()).unwrap();
    let lines = replay(&files.path("over.pcap"), &["--json", "--protect", &HOST.to_string()]).lines();
    let (last, changes) = lines.split_last().unwrap();
    for pair in changes.windows(2) {
        assert!(pair[0]["t"].as_f64() < pair[1]["t"].as_f64(), "{pair:?}");
        let is_other = pair[0]["verdict"] != pair[1]["verdict"] || pair[0]["vectors"] != pair[1]["vectors"];
        assert!(is_other || pair[1]["actions"].as_array().is_some_and(|actions| !actions.is_empty()), "{pair:?}");
        assert!(pair[0]["dropped"].as_u64() <= pair[1]["dropped"].as_u64(), "{pair:?}");
        assert!(pair[0]["passed"].as_u64() <= pair[1]["passed"].as_u64(), "{pair:?}");
    }
    let end = changes.last().unwrap();
    assert_eq!((&end["verdict"], &end["vector"]), (&"normal".into(), &Value::Null), "{end}");
    assert!((30.0..33.0).contains(&end["t"].as_f64().unwrap()), "{end}");
    let summary = &last["summary"];
    assert_eq!(summary["verdicts"]["normal"], 0.0, "the first time: {summary}");
    let (dropped, passed) = (summary["dropped"].as_u64().unwrap(), summary["passed"].as_u64().unwrap());
    assert_eq!((sum(&summary["dropped_by_reason"]), sum(&summary["passed_by_reason"])), (dropped, passed));
}

#[test]
fn a_line_in_words_says_why_and_what_is_done() {
    let files = Files::new();
    let said = replay(&files.flood("flood.pcap"), &[]);
    assert_eq!(said.exit, Some(0));
    for text in ["attack: syn-flood", "no operating system sends such", "> answer SYNs with cookies", " dropped ("] {
        assert!(said.out.contains(text), "{text}\n{}", said.out);
    }
}

#[test]
fn advice_drops_nothing() {
    let files = Files::new();
    let said = replay(&files.flood("flood.pcap"), &["--json", "--advise"]);
    let lines = said.lines();
    assert_eq!(lines[0]["verdict"], "attack");
    assert_eq!(lines.last().unwrap()["summary"]["dropped"], 0);
}

#[test]
fn what_was_measured_is_said_where_it_is_asked_for() {
    let files = Files::new();
    let flood = files.flood("flood.pcap");
    let lines = replay(&flood, &["--json"]).lines();
    assert!(lines.last().unwrap()["summary"].get("features").is_none());
    let lines = replay(&flood, &["--json", "--features"]).lines();
    let features = &lines.last().unwrap()["summary"]["features"];
    assert_eq!(features.as_object().unwrap().keys().collect::<Vec<_>>(), ["syn"], "{features}");
    let syns = &features["syn"];
    let number = |name: &str| syns[name].as_f64().unwrap_or_else(|| panic!("no {name}: {syns}"));
    assert!((1_800.0..2_200.0).contains(&number("packets_per_second")), "{syns}");
    assert!(number("source_entropy") > 0.99 && number("network_entropy") > 0.98, "{syns}");
    assert_eq!((number("per_source_p50"), number("per_source_p99")), (1.0, 1.0), "{syns}");
    assert_eq!(
        (&syns["hops_divergence"], syns.get("unknown_networks")),
        (&Value::Null, None),
        "nobody was here before"
    );
    let said = replay(&flood, &["--features"]).out;
    assert!(said.contains("      syn: ") && said.contains(", of networks "), "{said}");
}

#[test]
fn several_files_are_told_apart() {
    let files = Files::new();
    files.flood("a.pcap");
    files.flood("b.pcap");
    files.with("notes.txt", b"no capture, and not looked at");
    let said = replay(&files.0, &["--json"]);
    assert_eq!((said.exit, said.error.as_str()), (Some(0), ""));
    let ends: Vec<_> = said.lines().into_iter().filter(|line| line.get("summary").is_some()).collect();
    let names: Vec<_> = ends.iter().map(|line| line["file"].as_str().unwrap().rsplit('/').next().unwrap()).collect();
    assert_eq!(names, ["a.pcap", "b.pcap"]);
}

#[test]
fn names_do_not_tell_what_is_a_capture() {
    let files = Files::new();
    let named = files.path("trace-of-monday");
    std::fs::rename(files.flood("flood.pcap"), &named).unwrap();
    let said = replay(&named, &["--json"]);
    assert_eq!((said.exit, said.error.as_str()), (Some(0), ""));
}

/// A pcapng file of frames, all of one interface: of this link, with its times in so many parts of a second, or microseconds.
fn pcapng(link: u16, resolution: Option<u8>, per_second: u128, frames: &[(Duration, Vec<u8>)]) -> Vec<u8> {
    fn block(kind: u32, mut body: Vec<u8>) -> Vec<u8> {
        body.resize(body.len().next_multiple_of(4), 0);
        let length = (body.len() as u32 + 12).to_le_bytes();
        [&kind.to_le_bytes()[..], &length, &body, &length].concat()
    }
    let magic = [&0x1a2b_3c4d_u32.to_le_bytes()[..], &[1, 0, 0, 0], &[0xff; 8]].concat();
    let mut interface = [&link.to_le_bytes()[..], &[0, 0], &0x4_0000_u32.to_le_bytes()].concat();
    interface.extend(resolution.into_iter().flat_map(|power| [9, 0, 1, 0, power, 0, 0, 0, 0, 0, 0, 0]));
    let mut file = [block(0x0a0d_0d0a, magic), block(1, interface)].concat();
    for (at, frame) in frames {
        let ticks = (at.as_nanos() * per_second / 1_000_000_000) as u64;
        let length = (frame.len() as u32).to_le_bytes();
        let (upper, lower) = (((ticks >> 32) as u32).to_le_bytes(), (ticks as u32).to_le_bytes());
        file.extend(block(6, [&[0; 4][..], &upper, &lower, &length, &length, frame].concat()));
    }
    file
}

/// Published captures are of all kinds of links, and their clocks tick as they like.
#[test]
fn times_and_links_are_those_that_the_file_says() {
    const ETHERNET: u16 = 1;
    const COOKED_2: u16 = 276;
    let files = Files::new();
    let captured = floodwall::replay::read(&files.flood("flood.pcap"), |_| {}).unwrap();
    let frames: Vec<_> = captured.into_iter().map(|captured| (captured.at, captured.frame)).collect();
    let cooked = |(at, frame): &(Duration, Vec<u8>)| (*at, [&frame[12..14], &[0; 18], &frame[14..]].concat());
    let cooked: Vec<_> = frames.iter().map(cooked).collect();
    for (name, bytes) in [
        ("microseconds", pcapng(ETHERNET, None, 1_000_000, &frames)),
        ("nanoseconds", pcapng(ETHERNET, Some(9), 1_000_000_000, &frames)),
        ("binary", pcapng(ETHERNET, Some(0x94), 1 << 20, &frames)),
        ("cooked", pcapng(COOKED_2, None, 1_000_000, &cooked)),
    ] {
        let said = replay(&files.with(name, &bytes), &["--json"]);
        assert_eq!((said.exit, said.error.as_str()), (Some(0), ""), "{name}");
        let lines = said.lines();
        assert_eq!(lines[0]["vector"], "syn-flood", "{name}");
        assert!(lines[0]["t"].as_f64().unwrap() <= 0.5, "{name}: {}", lines[0]);
        let seconds = lines.last().unwrap()["summary"]["duration_s"].as_f64().unwrap();
        assert!((0.9..1.0).contains(&seconds), "{name}: {seconds}");
    }
    let unknown = replay(&files.with("usb.pcapng", &pcapng(189, None, 1_000_000, &frames)), &["--json"]);
    assert_eq!(unknown.exit, Some(3));
    assert!(unknown.error.contains("link type"), "{}", unknown.error);
}

#[test]
fn twenty_years_of_nothing_take_no_time() {
    let files = Files::new();
    let mut frames = floodwall::replay::read(&files.flood("flood.pcap"), |_| {}).unwrap();
    let late = frames.len() / 2;
    frames[late..].iter_mut().for_each(|captured| captured.at += Duration::from_secs(20 * 365 * 86_400));
    write(&files.path("gap.pcap"), &frames).unwrap();
    let begun = Instant::now();
    let said = replay(&files.path("gap.pcap"), &["--json"]);
    assert_eq!(said.exit, Some(0), "{}", said.error);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    let verdicts: Vec<_> = said.lines().iter().filter_map(|line| Some(line.get("verdict")?.clone())).collect();
    assert_eq!(verdicts.first().zip(verdicts.last()), Some((&"attack".into(), &"attack".into())), "{verdicts:?}");
    assert!(verdicts.contains(&"normal".into()), "the first one ends: {verdicts:?}");
}

#[test]
fn one_file_that_cannot_be_read_does_not_keep_the_others() {
    let files = Files::new();
    files.with("a.pcap", b"this is no capture at all, but text that is longer than a header");
    files.flood("b.pcap");
    let said = replay(&files.0, &["--json"]);
    assert_eq!(said.exit, Some(3));
    assert!(said.error.contains("a.pcap") && said.error.contains("1 of 2 files"), "{}", said.error);
    assert_eq!(said.lines()[0]["verdict"], "attack");
}

#[test]
fn what_is_cut_off_is_replayed_as_far_as_it_goes() {
    let files = Files::new();
    let whole = std::fs::read(files.flood("whole.pcap")).unwrap();
    let said = replay(&files.with("cut.pcap", &whole[..whole.len() - 7]), &["--json"]);
    assert_eq!(said.exit, Some(0), "{}", said.error);
    assert!(said.error.contains("cut.pcap: ends after "), "{}", said.error);
    assert_eq!(said.lines()[0]["verdict"], "attack");
}

#[test]
fn a_header_that_is_wrong_about_the_longest_packet_is_no_end() {
    let files = Files::new();
    let mut whole = std::fs::read(files.flood("whole.pcap")).unwrap();
    whole[16..20].fill(0);
    let said = replay(&files.with("wrong.pcap", &whole), &["--json"]);
    assert_eq!((said.exit, said.error.as_str()), (Some(0), ""));
}

#[test]
fn what_is_no_capture_is_refused_by_name() {
    let files = Files::new();
    let whole = std::fs::read(files.flood("whole.pcap")).unwrap();
    let nothing = Files::new();
    let cases = [
        (files.path("missing.pcap"), "cannot read"),
        (files.with("empty.pcap", b""), "is empty"),
        (files.with("text.pcap", b"this is no capture at all, but text that is longer than a header"), "no capture"),
        (files.with("noise.pcapng", &[0x0a, 0x0d, 0x0d, 0x0a, 1, 2, 3, 4, 5, 6, 7, 8]), "no capture"),
        (files.with("half-a-header.pcap", &whole[..10]), "no capture"),
        (files.with("only-a-header.pcap", &whole[..24]), "no packets in it"),
        (nothing.0.clone(), "no file there ends with"),
    ];
    for (path, text) in cases {
        let said = replay(&path, &["--json"]);
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        assert_eq!((said.exit, said.out.as_str()), (Some(3), ""), "{name}: {}", said.error);
        assert!(said.error.contains(text), "{name}: {}", said.error);
        assert!(said.error.contains(&name) || path == nothing.0, "{name}: {}", said.error);
    }
}

#[test]
fn what_is_not_ip_is_refused() {
    let files = Files::new();
    let frame = [&[0xff; 12][..], &[0x08, 0x06], &[0; 28]].concat();
    let at = Duration::from_secs(1);
    let arp = floodwall::replay::Captured { at, bytes: frame.len() as u32, frame };
    write(&files.path("arp.pcap"), &[arp]).unwrap();
    let said = replay(&files.path("arp.pcap"), &[]);
    assert_eq!(said.exit, Some(3));
    assert!(said.error.contains("arp.pcap: no packet in it is IP"), "{}", said.error);
}

#[test]
fn wrong_arguments_are_refused() {
    let files = Files::new();
    let flood = files.flood("flood.pcap");
    for wrong in ["--protect=nobody", "--speed=0", "--speed=-1", "--speed=fast", "--speed=inf", "--fast=1"] {
        let said = replay(&flood, &[wrong]);
        assert_eq!((said.exit, said.out.as_str()), (Some(2), ""), "{wrong:?}");
        let (name, _) = wrong.split_once('=').unwrap();
        assert!(said.error.contains(name), "{wrong:?}: {}", said.error);
    }
}

#[test]
fn an_address_that_nothing_goes_to_is_said() {
    let files = Files::new();
    let said = replay(&files.flood("flood.pcap"), &["--json", "--protect", "192.0.2.1"]);
    assert_eq!(said.exit, Some(0));
    assert!(said.error.contains("no packet in it goes to 192.0.2.1"), "{}", said.error);
    assert_eq!(said.lines()[0]["summary"]["packets"], 0);
}

#[test]
fn a_capture_can_be_replayed_in_its_own_time() {
    let files = Files::new();
    let begun = Instant::now();
    let said = replay(&files.flood("flood.pcap"), &["--json", "--speed", "2"]);
    assert_eq!(said.lines()[0]["verdict"], "attack");
    assert!(begun.elapsed().as_secs_f64() >= 0.49, "{:?}", begun.elapsed());
}
