//! The shipped filter in the kernel, without an interface: loaded on a BPF file system of its own, fed by test runs,
//! and read by its counters. It attaches nothing and judges nothing.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};
use aya::maps::{Map, MapData, RingBuf};
use floodwall::dataplane::{Cell, Dataplane, Group, Listed, Pins, PreparedLists, Signature, TestRun, test_run};
use floodwall_common::abi::{Counter, Sample, map};
use floodwall_common::class::Kind;
use floodwall_common::clock::Moment;
use floodwall_common::config::Sampling;
use floodwall_common::limits::{LimitKey, Limits, Rate};
use floodwall_common::lists::{LISTS, List};
use floodwall_common::reason::{Reason, Verdict};
use floodwall_common::signatures::{Action, Shape};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;

/// A BPF file system of this test alone, gone with it.
pub struct Bpffs {
    path: PathBuf,
}

impl Bpffs {
    /// Mounts one in a new directory.
    ///
    /// # Errors
    /// Where the directory or the mount is refused.
    pub fn mount() -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("floodwall-kernel-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).with_context(|| format!("create {}", path.display()))?;
        let mounted = mount(Some("bpf"), &path, Some("bpf"), MsFlags::empty(), Some("mode=0700"));
        if let Err(error) = mounted {
            fs::remove_dir(&path)?;
            return Err(error).context("mount a BPF file system (tests of the kernel half run as root)");
        }
        Ok(Self { path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        // Lazily: a descriptor that a failed test still holds must not keep it here.
        if umount2(&self.path, MntFlags::MNT_DETACH).is_ok() {
            let _ = fs::remove_dir(&self.path);
        }
    }
}

/// Where the filter's time comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Time {
    /// The kernel's ticks: the program is the one that is shipped, to the instruction.
    Ticks,
    /// The test, by [`Kernel::set_time`].
    Test,
}

/// Which of the two programs of the filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// For linear frames.
    Linear,
    /// For frames in fragments.
    Frags,
}

impl Variant {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Linear, Self::Frags];
}

/// The loaded filter and its maps. Fields are dropped in this order, the file system last.
pub struct Kernel {
    /// The maps.
    pub dataplane: Dataplane,
    linear: OwnedFd,
    frags: OwnedFd,
    egress: OwnedFd,
    bpffs: Bpffs,
}

impl Kernel {
    /// Loads both programs on new maps: monitor mode, default limits, empty lists. Nothing is sampled.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn load(time: Time) -> Result<Self> {
        let bpffs = Bpffs::mount()?;
        let mut dataplane = Dataplane::open_or_create(Pins::new(bpffs.path()))?;
        dataplane.set_sampling(Sampling::new([0; 3], 0))?;
        let linear = dataplane.load_for_test(false, time == Time::Test)?;
        let frags = dataplane.load_for_test(true, time == Time::Test)?;
        let egress = dataplane.load_egress_for_test(time == Time::Test)?;
        Ok(Self { dataplane, linear, frags, egress, bpffs })
    }

    /// Shows the other direction's program a frame that leaves.
    ///
    /// # Errors
    /// Where the kernel does not run it, or it does anything but look on.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        let result = test_run(&self.egress, TestRun { frame, repeat: 1, live: None, ifindex: 0 })?;
        // TC_ACT_UNSPEC: whoever comes next decides.
        if result.verdict != u32::MAX || result.frame != frame {
            bail!("the program for sent packets has answered {}", result.verdict as i32);
        }
        Ok(())
    }

    /// The descriptor of a program.
    pub fn program(&self, variant: Variant) -> &OwnedFd {
        match variant {
            Variant::Linear => &self.linear,
            Variant::Frags => &self.frags,
        }
    }

    /// Judges a frame.
    ///
    /// # Errors
    /// Where the kernel does not run it, the verdict is none, or the filter changed the frame.
    pub fn judge(&self, variant: Variant, frame: &[u8]) -> Result<Verdict> {
        let run = TestRun { frame, repeat: 1, live: None, ifindex: 0 };
        let result = test_run(self.program(variant), run).with_context(|| format!("run {} bytes", frame.len()))?;
        if result.frame != frame {
            bail!("the filter changed the frame");
        }
        verdict(result.verdict)
    }

    /// Judges a frame many times over; the verdict is that of the last.
    ///
    /// # Errors
    /// As [`Self::judge`].
    pub fn repeat(&self, frame: &[u8], repeat: u32) -> Result<Verdict> {
        let result = test_run(&self.linear, TestRun { frame, repeat, live: None, ifindex: 0 })?;
        verdict(result.verdict)
    }

    /// Sets the test's time.
    ///
    /// # Errors
    /// Where the map cannot be written.
    pub fn set_time(&self, now_ns: u64) -> Result<()> {
        Ok(self.dataplane.set_test_clock(Moment::from_ns(now_ns))?)
    }

    /// The counters now.
    pub fn counted(&self) -> Counted {
        Counted(self.dataplane.counters(0))
    }

    /// Sets one limit.
    ///
    /// # Errors
    /// Where they cannot be kept or written.
    pub fn set_limit(&mut self, key: impl Into<LimitKey>, packets: Rate, bytes: Rate) -> Result<()> {
        let limits = Limits { packets, bytes };
        if let Err((unit, error)) = floodwall::dataplane::check_limits(limits) {
            bail!("{limits:?}: {unit:?} {error:?}");
        }
        self.dataplane.set_limits(&[(key.into(), limits)], None)?;
        Ok(())
    }

    /// Replaces a list as a whole; the others stay.
    ///
    /// # Errors
    /// Where the lists cannot be read or written.
    pub fn replace_list(&mut self, list: List, entries: &[Listed]) -> Result<()> {
        let present: Vec<_> = List::ALL.iter().map(|list| self.dataplane.list(*list)).collect::<Result<_, _>>()?;
        let mut wanted: [&[Listed]; LISTS] = std::array::from_fn(|at| present[at].as_slice());
        wanted[list as usize] = entries;
        self.install_lists(wanted)
    }

    /// Replaces allow and deny list at once; nobody is in a group then.
    ///
    /// # Errors
    /// Where the lists cannot be written.
    pub fn replace_lists(&mut self, allow: &[Listed], deny: &[Listed]) -> Result<()> {
        self.install_lists([allow, deny, &[]])
    }

    /// Replaces all groups at once, numbered from one; the lists stay.
    ///
    /// # Errors
    /// Where they cannot be kept or written.
    pub fn replace_groups(&mut self, groups: &[Group]) -> Result<()> {
        let groups: Vec<_> = (1..).zip(groups.iter().cloned()).collect();
        let [allow, deny] = [self.dataplane.list(List::Allow)?, self.dataplane.list(List::Deny)?];
        let member =
            |number: u32, prefix: &ipnet::IpNet| Ok(Listed { group: number, ..listed(&prefix.to_string(), None)? });
        let members =
            groups.iter().flat_map(|(number, group)| group.prefixes.iter().map(|prefix| member(*number, prefix)));
        let members = members.collect::<Result<Vec<_>>>()?;
        let generation = self.dataplane.config()?.generation;
        let prepared = PreparedLists::new([&allow, &deny, &members])?;
        self.dataplane.install(&prepared, Some(&groups), &[], generation)?;
        Ok(())
    }

    fn install_lists(&mut self, lists: [&[Listed]; LISTS]) -> Result<()> {
        let generation = self.dataplane.config()?.generation;
        self.dataplane.install_lists(&PreparedLists::new(lists)?, generation)?;
        Ok(())
    }

    /// Replaces all signatures at once.
    ///
    /// # Errors
    /// Where they cannot be written.
    pub fn replace_signatures(&mut self, signatures: &[Signature]) -> Result<()> {
        let generation = self.dataplane.config()?.generation;
        self.dataplane.install_signatures(signatures, generation)?;
        Ok(())
    }

    /// Where a map is pinned.
    pub fn pin(&self, name: &str) -> PathBuf {
        Pins::new(self.bpffs.path()).directory().join(name)
    }

    /// The ring of samples, as the records that lie in it.
    ///
    /// # Errors
    /// Where the ring cannot be opened.
    pub fn ring(&self) -> Result<Ring> {
        let data = MapData::from_pin(self.pin(map::SAMPLES))?;
        Ok(Ring { ring: RingBuf::try_from(Map::RingBuf(data))? })
    }
}

fn verdict(action: u32) -> Result<Verdict> {
    match action {
        XDP_PASS => Ok(Verdict::Pass),
        XDP_DROP => Ok(Verdict::Drop),
        other => bail!("XDP action {other}"),
    }
}

/// The reader's end of the sample ring, record by record.
pub struct Ring {
    ring: RingBuf<MapData>,
}

impl Ring {
    /// All that is in it.
    ///
    /// # Errors
    /// Where a record is not of the size of a sample.
    pub fn drain(&mut self) -> Result<Vec<Sample>> {
        let mut samples = Vec::new();
        while let Some(record) = self.ring.next() {
            if record.len() != size_of::<Sample>() {
                bail!("a record of {} bytes", record.len());
            }
            // SAFETY: as long as a sample, integers only, and read without regard to alignment.
            samples.push(unsafe { record.as_ptr().cast::<Sample>().read_unaligned() });
        }
        Ok(samples)
    }
}

/// The counters that were not zero at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted(Vec<Cell>);

impl Counted {
    /// What was counted since an earlier moment: every cell that changed, and by how much.
    pub fn since(&self, earlier: &Self) -> Vec<Cell> {
        let key = |cell: &Cell| (cell.verdict, cell.kind, cell.reason);
        let mut changed = Vec::new();
        for cell in &self.0 {
            let before = earlier.0.iter().find(|before| key(before) == key(cell));
            let (packets, bytes) = before.map_or((0, 0), |before| (before.packets, before.bytes));
            let (packets, bytes) = (cell.packets.wrapping_sub(packets), cell.bytes.wrapping_sub(bytes));
            if (packets, bytes) != (0, 0) {
                changed.push(Cell { packets, bytes, ..*cell });
            }
        }
        changed
    }

    /// Packets of all cells.
    pub fn packets(&self) -> u64 {
        self.0.iter().map(|cell| cell.packets).sum()
    }

    /// Packets under a reason.
    pub fn of(&self, reason: Reason) -> u64 {
        self.0.iter().filter(|cell| cell.reason == reason).map(|cell| cell.packets).sum()
    }

    /// The cells.
    pub fn cells(&self) -> &[Cell] {
        &self.0
    }
}

/// What one packet has to change in the counters: this cell, and no other.
pub fn one(verdict: Verdict, kind: Kind, reason: Reason, bytes: usize) -> Vec<Cell> {
    vec![Cell { verdict, kind, reason, packets: 1, bytes: bytes as u64 }]
}

/// An entry of a list, from `address/length`.
///
/// # Errors
/// Where that is no prefix.
pub fn listed(prefix: &str, until: Option<Moment>) -> Result<Listed> {
    let prefix = prefix.parse().with_context(|| format!("prefix {prefix}"))?;
    Ok(Listed {
        prefix,
        until,
        added: SystemTime::UNIX_EPOCH + Duration::from_secs(1),
        note: "a test".into(),
        group: 0,
    })
}

/// A signature that is to be added.
pub fn signature(name: &str, shape: Shape, action: Action, until: Option<Moment>) -> Signature {
    Signature {
        number: None,
        name: name.to_owned(),
        shape,
        action,
        until,
        added: SystemTime::UNIX_EPOCH + Duration::from_secs(1),
        note: "a test".into(),
        hits: Counter::default(),
    }
}

/// Keeps this thread on one CPU, as the state of the gate and of the samplers is kept by CPU.
///
/// # Errors
/// Where there is no such CPU.
pub fn pin_to_cpu(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("run on CPU {cpu}"))
}

/// A number that the kernel says of a descriptor, such as `memlock` or `verified_insns`.
///
/// # Errors
/// Where it says no such thing.
pub fn descriptor_figure(descriptor: impl AsFd, name: &str) -> Result<u64> {
    let path = format!("/proc/self/fdinfo/{}", descriptor.as_fd().as_raw_fd());
    let text = fs::read_to_string(&path)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    Ok(line.with_context(|| format!("no {name} in {path}"))?.trim().parse()?)
}
