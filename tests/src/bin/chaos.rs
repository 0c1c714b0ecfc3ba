//! Ten minutes of everything that goes wrong, under a flood: the daemon killed and replaced, reloads good and bad, the interface
//! down and up, the filter taken off, pins wiped, the disk full, the wall clock ten years off, several command lines at once. Whatever
//! happens, nothing of the deny list passes while the filter is there, nothing of the allow list is dropped, nothing that was set
//! is lost, and nothing is left behind: memory, descriptors, programs, maps.

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, UdpSocket};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use floodwall_tests::captures::made::Random;
use floodwall_tests::clock::WallClock;
use floodwall_tests::daemon::{Daemon, Place, floodwall, run_verb, status, wait_for};
use floodwall_tests::flood::Flood;
use floodwall_tests::netns::Running;
use floodwall_tests::pins::{detach_link, forget_object_hash, wipe};
use floodwall_tests::topology::{PROTECTED, Topology};

/// Everything that goes wrong, under a flood
#[derive(Debug, Parser)]
struct Options {
    /// For how long
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(10..=3_600))]
    seconds: u64,
    /// Packets a second of the flood, all of them of the deny list
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1_000..=1_000_000))]
    pps: u64,
    /// What chance begins with
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// What floods, all of it denied. Where it goes somebody listens, so that what passes is seen.
const DENIED: &str = "11.0.0.0/8";
const FLOODED: u16 = 9;
/// What is allowed sends its number here, so often a second.
const NUMBERED: u16 = 7_777;
const NUMBERS_PER_SECOND: u32 = 100;
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 66, 1, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 1);
/// Around a moment at which the filter or the link was away, nothing is said of packets.
const MARGIN: Duration = Duration::from_millis(300);
/// The share of allowed packets that may be missing: a queue that is full while the machine stands still takes some.
const MISSING: f64 = 0.001;

/// How far the wall clock jumps.
const YEARS_S: i64 = 10 * 365 * 86_400;
/// What a daemon may take at most, whatever it has been through.
const MOST: Taken = Taken { resident_kb: 64 << 10, descriptors: 64 };

/// What a daemon takes of the machine.
#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    resident_kb: u64,
    descriptors: usize,
}

impl Taken {
    fn by(pid: u32) -> Result<Self> {
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd"))?.count();
        Ok(Self { resident_kb: resident_kb(pid)?, descriptors })
    }

    fn most(self, other: Self) -> Self {
        Self {
            resident_kb: self.resident_kb.max(other.resident_kb),
            descriptors: self.descriptors.max(other.descriptors),
        }
    }
}

/// Programs and maps that the kernel holds, whoever has loaded them.
fn held() -> [usize; 2] {
    let programs = aya::programs::loaded_programs().filter_map(Result::ok).count();
    [programs, aya::maps::loaded_maps().filter_map(Result::ok).count()]
}

/// When the filter or the link was not there, on purpose.
#[derive(Clone, Default)]
struct Away(Arc<Mutex<Vec<(Instant, Instant)>>>);

impl Away {
    /// Does something that takes it away, until it is there again.
    fn during<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let begun = Instant::now();
        let done = work();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((begun - MARGIN, Instant::now() + MARGIN));
        done
    }

    fn covers(&self, at: Instant) -> bool {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().any(|(from, to)| (*from..*to).contains(&at))
    }
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chaos: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    let before = held();
    let mut scene = Scene::new()?;
    let duration = Duration::from_secs(options.seconds);
    let over = Arc::new(AtomicBool::new(false));
    let passed = listen(&scene.topology, FLOODED, &over)?;
    let numbered = listen(&scene.topology, NUMBERED, &over)?;
    let sent = send_numbers(&scene.topology, duration)?;
    let flood = Flood { only_v4: true, gives_way: true, ..Flood::udp(1 << 24, options.pps, duration) };
    let flood = flood.start(&scene.topology.world, scene.topology.target()?, 0)?;
    let (begun, mut random) = (Instant::now(), Random(options.seed));
    let mut done: BTreeMap<&str, u32> = BTreeMap::new();
    while begun.elapsed() < duration {
        let (name, event) = random.one_of(&EVENTS);
        event(&mut scene, &mut random)
            .with_context(|| format!("{name}, {:.1} s after the begin", begun.elapsed().as_secs_f64()))?;
        scene.check().with_context(|| format!("after {name}"))?;
        scene.taken = scene.taken.most(Taken::by(scene.pid()?)?);
        *done.entry(name).or_default() += 1;
        eprint!("\r{:>4} s, {} events ", begun.elapsed().as_secs(), done.values().sum::<u32>());
    }
    eprintln!();
    let flooded = flood.join()??;
    let sent = sent.join()?;
    over.store(true, Ordering::Relaxed);
    let (leaked, arrived) = (passed.join()?, numbered.join()?);
    let leaked = leaked.iter().filter(|(at, _)| !scene.away.covers(*at)).count();
    let arrived: HashMap<u64, Instant> = arrived.into_iter().map(|(at, number)| (number, at)).collect();
    let due: Vec<_> = sent.iter().filter(|(at, _)| !scene.away.covers(*at)).collect();
    let missing = due.iter().filter(|(_, number)| !arrived.contains_key(number)).count();
    let taken = scene.taken;
    let counted = status(&scene.topology.server, &scene.place)?;
    println!("events: {done:?}");
    println!("flood: {} packets sent, {leaked} passed while the filter was there", flooded.packets());
    println!("allowed: {} packets due, {missing} missing", due.len());
    println!(
        "counted: {} dropped of the deny list, {} of anything else",
        of_denied(&counted, "drop", true),
        of_denied(&counted, "drop", false)
    );
    println!("daemon: at most {} KiB, {} descriptors", taken.resident_kb, taken.descriptors);
    let Scene { daemon, topology, place, .. } = scene;
    drop(daemon);
    run_verb(&topology.server, &place, "uninstall")?;
    let is_free = || held().iter().zip(before).all(|(now, before)| *now <= before);
    wait_for("the kernel to let go of programs and maps", || is_free().then_some(()))?;
    ensure!(leaked == 0, "{leaked} packets of the deny list passed");
    ensure!(missing as f64 <= MISSING * due.len() as f64, "{missing} of {} allowed packets are missing", due.len());
    // What the filter itself says: by its counters it has let nothing of the deny list pass, and dropped nothing else.
    let (passed, dropped) = (of_denied(&counted, "pass", true), of_denied(&counted, "drop", false));
    ensure!(passed == 0 && dropped == 0, "{passed} denied passed, {dropped} of others dropped: {counted}");
    ensure!(of_denied(&counted, "drop", true) > 0, "nothing was flooded: {counted}");
    ensure!(taken.resident_kb <= MOST.resident_kb && taken.descriptors <= MOST.descriptors, "{taken:?}");
    Ok(())
}

/// Packets with this verdict that are of the deny list, or that are not.
fn of_denied(status: &serde_json::Value, verdict: &str, is_denied: bool) -> u64 {
    let reasons = status["interfaces"].as_array().into_iter().flatten();
    let reasons = reasons.flat_map(|interface| interface["reasons"].as_array().into_iter().flatten());
    let wanted = reasons.filter(|entry| entry["verdict"] == verdict && (entry["reason"] == "denied") == is_denied);
    wanted.filter_map(|entry| entry["packets"].as_u64()).sum()
}

type Event = fn(&mut Scene, &mut Random) -> Result<()>;

const EVENTS: [(&str, Event); 11] = [
    ("kill", Scene::kill),
    ("restart", Scene::restart),
    ("upgrade", Scene::upgrade),
    ("reload", Scene::reload),
    ("bad file", Scene::bad_file),
    ("link down", Scene::link_down),
    ("filter taken off", Scene::take_off),
    ("pins wiped", Scene::wipe_pins),
    ("disk full", Scene::fill_disk),
    ("clock jumps", Scene::jump),
    ("command lines", Scene::command_lines),
];

struct Scene {
    topology: Topology,
    place: Place,
    daemon: Option<Daemon>,
    away: Away,
    clock: WallClock,
    taken: Taken,
    /// What the limit of ICMP was set to.
    icmp_pps: u64,
    denied: usize,
}

impl Scene {
    fn new() -> Result<Self> {
        let (topology, place) = (Topology::new(1)?, Place::new()?);
        let (away, clock, taken) = (Away::default(), WallClock::new(&place)?, Taken::default());
        let mut scene = Self { topology, place, daemon: None, away, clock, taken, icmp_pps: 100, denied: 1 };
        scene.start()?;
        scene.verb(&format!("deny add {DENIED} --force"))?;
        scene.verb(&format!("allow add {CLIENT}"))?;
        scene.verb("mode enforce")?;
        scene.verb(&format!("limits set icmp --pps {}", scene.icmp_pps))?;
        Ok(scene)
    }

    fn verb(&self, words: &str) -> Result<String> {
        run_verb(&self.topology.server, &self.place, words)
    }

    fn pid(&self) -> Result<u32> {
        Ok(self.daemon.as_ref().context("no daemon")?.pid())
    }

    fn start(&mut self) -> Result<()> {
        let arguments = ["--interface", PROTECTED, "--metrics", "off"];
        let (server, clock) = (&self.topology.server, self.clock.environment());
        self.daemon = Some(Daemon::start_with(server, &self.place, &arguments, &clock)?);
        Ok(())
    }

    fn is_attached(&self) -> Option<()> {
        let status = status(&self.topology.server, &self.place).ok()?;
        (status["interfaces"][0]["attached"] == "native").then_some(())
    }

    /// What was set is in force.
    fn check(&self) -> Result<()> {
        wait_for("the filter", || self.is_attached())?;
        let status = status(&self.topology.server, &self.place)?;
        ensure!(status["mode"] == "enforce", "{status}");
        ensure!(status["deny_entries"] == self.denied && status["allow_entries"] == 1, "{status}");
        let limits = self.verb("limits show --json")?;
        let limits: serde_json::Value = serde_json::from_str(&limits)?;
        let mut all = limits["limits"].as_array().into_iter().flatten();
        let icmp = all.find(|limit| limit["name"] == "icmp" && limit["per"] == "source").context("icmp")?;
        ensure!(icmp["packets"]["per_second"] == self.icmp_pps, "{icmp}");
        Ok(())
    }

    fn kill(&mut self, _: &mut Random) -> Result<()> {
        self.daemon.take().context("no daemon")?.kill()?;
        self.start()
    }

    fn restart(&mut self, _: &mut Random) -> Result<()> {
        self.daemon.take().context("no daemon")?.stop()?;
        self.start()
    }

    /// Another build takes over: its program replaces the one on the interface.
    fn upgrade(&mut self, _: &mut Random) -> Result<()> {
        self.daemon.take().context("no daemon")?.stop()?;
        forget_object_hash(&self.place)?;
        self.start()
    }

    fn file(&self, text: &str) -> Result<()> {
        Ok(std::fs::write(self.place.directory().join("floodwall.toml"), format!("auto_allow = false\n{text}"))?)
    }

    fn reload(&mut self, random: &mut Random) -> Result<()> {
        self.icmp_pps = random.number(10..1_000).into();
        self.file(&format!("[limits.icmp]\npps = {}\n", self.icmp_pps))?;
        self.verb("reload").map(drop)
    }

    fn bad_file(&mut self, _: &mut Random) -> Result<()> {
        let path = self.place.directory().join("floodwall.toml");
        let before = std::fs::read(&path)?;
        self.file("[limits.icmp]\nppss = 1\nmode = \"of war\"\n")?;
        let refused = floodwall(&self.topology.server, &self.place, &["reload"])?;
        std::fs::write(&path, before)?;
        ensure!(refused.status.code() == Some(3), "{refused:?}");
        Ok(())
    }

    fn link_down(&mut self, _: &mut Random) -> Result<()> {
        let (away, server) = (self.away.clone(), &self.topology.server);
        away.during(|| {
            server.ip(&format!("link set {PROTECTED} down"))?;
            server.ip(&format!("link set {PROTECTED} up"))?;
            // The kernel has neighbours to find again.
            wait_for("the link", || {
                server.read_sys(&format!("{PROTECTED}/operstate")).ok()?.contains("up").then_some(())
            })
        })
    }

    fn take_off(&mut self, _: &mut Random) -> Result<()> {
        let away = self.away.clone();
        away.during(|| {
            detach_link(&self.place, self.topology.server.ifindex(PROTECTED)?)?;
            wait_for("it to be told", || self.is_attached().is_none().then_some(()))?;
            wait_for("the filter to be back", || self.is_attached())
        })
    }

    fn wipe_pins(&mut self, _: &mut Random) -> Result<()> {
        wipe(&self.place)?;
        let pins = floodwall_tests::pins::pin(&self.place, "CONFIG");
        wait_for("the pins to be back", || pins.exists().then_some(()))
    }

    /// Who did what cannot be written down meanwhile; it is done all the same.
    fn fill_disk(&mut self, random: &mut Random) -> Result<()> {
        use nix::mount::{MntFlags, MsFlags, mount, umount2};
        let history = self.place.directory().join("history.ndjson");
        let full = self.place.directory().join("full");
        std::fs::create_dir_all(&full)?;
        mount(Some("full"), &full, Some("tmpfs"), MsFlags::empty(), Some("size=4k"))?;
        std::fs::write(full.join("room"), [0; 4_096])?;
        std::fs::write(full.join("none"), [])?;
        mount(Some(&full.join("none")), &history, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .context("a disk without room")?;
        self.icmp_pps = random.number(10..1_000).into();
        let done = self.verb(&format!("limits set icmp --pps {}", self.icmp_pps)).map(drop);
        // The next start takes the file's word again.
        self.file(&format!("[limits.icmp]\npps = {}\n", self.icmp_pps))?;
        umount2(&history, MntFlags::MNT_DETACH)?;
        umount2(&full, MntFlags::MNT_DETACH)?;
        done
    }

    /// The daemon's wall clock: back, ahead, or right again.
    fn jump(&mut self, random: &mut Random) -> Result<()> {
        self.clock.jump(random.one_of(&[-YEARS_S, YEARS_S, 0]))
    }

    /// At the same moment: each is done, or told that another was faster.
    fn command_lines(&mut self, random: &mut Random) -> Result<()> {
        let prefix = format!("203.0.113.{}", random.number(1..255));
        let words = ["status", "top", "limits show", "deny list", &format!("deny add {prefix} --ttl 1h"), "metrics"];
        let mut running = Vec::new();
        for words in words {
            let words: Vec<_> = words.split(' ').collect();
            let mut command = self.place.command(&self.topology.server, &words)?;
            running.push(command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn()?);
        }
        for mut child in running {
            let exit = child.wait()?.code();
            ensure!(matches!(exit, Some(0 | 5 | 10)), "{exit:?}");
        }
        wait_for("the prefix to be gone", || {
            self.verb(&format!("deny remove {prefix}")).ok()?;
            let status = status(&self.topology.server, &self.place).ok()?;
            (status["deny_entries"] == self.denied).then_some(())
        })
    }
}

/// Datagrams to a port of the server: when each came, and the number in it.
type Heard = Vec<(Instant, u64)>;

fn listen(topology: &Topology, port: u16, over: &Arc<AtomicBool>) -> Result<Running<Heard>> {
    let over = Arc::clone(over);
    let socket = topology.server.run(move || UdpSocket::bind((SERVER, port)))??;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    topology.server.spawn(move || {
        let (mut heard, mut datagram) = (Heard::new(), [0; 64]);
        while !over.load(Ordering::Relaxed) {
            if socket.recv(&mut datagram).is_ok() {
                let number = datagram.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
                heard.push((Instant::now(), number));
            }
        }
        heard
    })
}

fn send_numbers(topology: &Topology, duration: Duration) -> Result<Running<Heard>> {
    topology.world.spawn(move || {
        let (begun, mut sent) = (Instant::now(), Heard::new());
        let Ok(socket) = UdpSocket::bind((CLIENT, 0)) else { return sent };
        for number in 0_u64.. {
            if begun.elapsed() >= duration {
                break;
            }
            if socket.send_to(&number.to_be_bytes(), (SERVER, NUMBERED)).is_ok() {
                sent.push((Instant::now(), number));
            }
            let due = Duration::from_secs_f64(number as f64 / f64::from(NUMBERS_PER_SECOND));
            // condition: the pace.
            std::thread::sleep(due.saturating_sub(begun.elapsed()));
        }
        sent
    })
}

fn resident_kb(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    Ok(line.split_whitespace().next().context("VmRSS")?.parse()?)
}
