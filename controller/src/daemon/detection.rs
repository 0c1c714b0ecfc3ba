//! Detection at work: what was sampled goes in, a verdict comes out, and what it calls for is armed, written down, and taken back
//! when its time is up.

mod canary;
mod kept;
mod known;
mod live;
mod record;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use floodwall_common::abi::SAMPLE_STREAMS;
use floodwall_common::class::Class;
use floodwall_common::config::Mode;
use floodwall_common::limits::Per;
use floodwall_common::packet::{Frame, Source};
use floodwall_common::reason::{DropSet, Reason, Verdict as Fate};
use floodwall_common::signatures::Traits;
use tracing::{error, info, warn};

use self::canary::Canaries;
use self::kept::Kept;
use self::known::Known;
use self::live::{Live, sends_elsewhere};
use super::Daemon;
use super::connections;
use super::measures::{STAYS, arm, disarm, left_in_force, look_after};
use super::probing::Prober;
use super::stack::{Came, Readings, Stack, udp_services};
use crate::dataplane::{self, Dataplane, Sample, monotonic_ns};
use crate::detect::{Assessment, Detector, Features, Host as _, Observed, Vector};
use crate::exit::describe;
use crate::incident::Incident;
use crate::respond::{Denied, InForce, Measure, Policy, missing, respond, surplus};
use crate::snapshot::{Situation, Snapshot};
use crate::{history, listeners};

/// Where less than this is left of it and the attack goes on, it is prolonged.
const PROLONGED_BELOW: Duration = Duration::from_secs(300);
/// How often it is looked at whether measures are still there, and what they cost.
const LOOKED_AFTER_EVERY_NS: u64 = 1_000_000_000;
/// When one that could not be withdrawn or prolonged is tried again.
const TRIED_AGAIN_NS: u64 = 5_000_000_000;
/// How often the host's ports are asked.
const PORTS_EVERY_NS: u64 = 1_000_000_000;

/// Detection at work.
pub(super) struct Watch {
    detector: Detector,
    kept: Kept,
    known: Known,
    live: Live,
    ports_at_ns: u64,
    /// Names of the devices that are protected.
    protected: BTreeSet<String>,
    stack: Readings,
    classes_then: (Vec<u64>, u64),
    /// Bytes that came in, until the last time, and in a second since the time before.
    bytes_then: u64,
    bytes_per_second: f64,
    /// Packets a second while nothing goes on, and of how many looks that is.
    usual_per_second: (f64, u32),
    restless_since_ms: Option<u64>,
    in_force: Vec<InForce>,
    refused: Vec<InForce>,
    advised: Vec<InForce>,
    /// What could not be armed, and when that is tried again.
    failed: Vec<InForce>,
    /// When what could not be prolonged is tried again.
    prolonged_again_ns: u64,
    /// Denied sources whose connections are to be closed once drops are real.
    to_close: Vec<Denied>,
    prober: Prober,
    canaries: Canaries,
    /// The UDP ports that something listened on when what nothing listens for was dropped last.
    listening: BTreeSet<u16>,
    /// Packets that drop and that pass, until the last time, and what that was judged by.
    counted_then: Option<((u64, u64), (Mode, DropSet))>,
    looked_after_ns: u64,
    last_sign_ms: u64,
    /// Until when a record that was left open stays so without a sign.
    held_until_ms: u64,
    /// Connections of those that the record names as holding them.
    most_held: usize,
    /// Length of the timeline that was written last, and when.
    saved: (usize, u64),
    /// Records that are over and could not be written, and when that was tried last.
    unsaved: (Vec<Incident>, u64),
}

impl Watch {
    pub(super) fn new(daemon: &Daemon) -> Self {
        let kept = Kept::beside(&daemon.options.history);
        let mut watch = Self {
            detector: kept.detector(),
            kept,
            known: Known::new(),
            live: Live::default(),
            ports_at_ns: 0,
            protected: BTreeSet::new(),
            stack: Readings::default(),
            classes_then: (Vec::new(), 0),
            bytes_then: 0,
            bytes_per_second: 0.0,
            usual_per_second: (0.0, 0),
            restless_since_ms: None,
            in_force: Vec::new(),
            refused: Vec::new(),
            advised: Vec::new(),
            failed: Vec::new(),
            prolonged_again_ns: 0,
            to_close: Vec::new(),
            prober: Prober::default(),
            canaries: Canaries::default(),
            listening: BTreeSet::new(),
            counted_then: None,
            looked_after_ns: 0,
            last_sign_ms: 0,
            held_until_ms: 0,
            most_held: 0,
            saved: (0, 0),
            unsaved: (Vec::new(), 0),
        };
        match left_in_force(&daemon.dataplane()) {
            Ok(left) => watch.in_force = left,
            Err(error) => warn!(%error, "what the daemon before this one has armed is not looked after"),
        }
        watch.adopt_record(daemon);
        watch
    }

    /// Before samples are taken in: what this host knows now.
    pub(super) fn look_around(&mut self, dataplane: &Dataplane) {
        let sees_sent = dataplane.not_remembered().is_ok_and(|without| without.is_empty());
        match (sees_sent, &self.live.sent) {
            (false, _) => self.live.sent = None,
            (true, None) => self.live.sent = dataplane.sent_reader().ok(),
            (true, Some(_)) => {}
        }
        self.live.clock = dataplane.clock().ok();
        let now_ns = monotonic_ns();
        if now_ns.saturating_sub(self.ports_at_ns) >= PORTS_EVERY_NS {
            self.ports_at_ns = now_ns;
            self.live.udp = udp_services();
            let protected = dataplane.protected(&[]).unwrap_or_default();
            let names: Vec<_> = protected.iter().map(|interface| interface.name.as_str()).collect();
            self.live.sends_elsewhere = sends_elsewhere(&names);
            self.protected = names.into_iter().map(str::to_owned).collect();
        }
    }

    /// Takes a sample in, of which one in so many is taken of each stream. What a used-up budget has left to a sample is too much
    /// for one: volumes are counted elsewhere.
    pub(super) fn observe(&mut self, sample: &Sample, frame: Frame<'_>, every: [u32; SAMPLE_STREAMS]) {
        let weight = sample.weight.min(2 * every[sample.stream as usize]).max(1);
        // What is shed the host would not have taken either: nobody is held by that.
        let is_held = sample.drops && sample.reason != Reason::ConnectionCap;
        if let Some(mut packet) = Observed::of(frame, sample.monotonic_ns, weight, is_held, &self.live) {
            if packet.is_held && packet.is_known == Some(true) && self.canaries.had_let_in(&packet) {
                packet.is_known = None;
            }
            if packet.is_spoken_with() {
                self.count_toll(packet.source, sample, frame, weight);
            }
            if self.live.knows(&packet) {
                self.live.matched_ns = sample.monotonic_ns;
            }
            self.detector.observe(packet);
        }
    }

    /// A packet of an end that this host speaks with: whether a signature that was armed drops it.
    fn count_toll(&mut self, source: Source, sample: &Sample, frame: Frame<'_>, weight: u32) {
        let window = self.detector.window();
        let class = sample.kind.parts().map(|(_, class)| class.label());
        let traits = if sample.reason == Reason::Signature { Traits::read(frame) } else { None };
        for present in &mut self.in_force {
            let is_hit = match &present.measure {
                Measure::Signature(_, found) => traits.as_ref().is_some_and(|traits| found.shape.suits(traits)),
                Measure::Limit(wide) => sample.reason == reason_of(wide.per) && class == Some(wide.name.label()),
                _ => continue,
            };
            if is_hit || !sample.drops {
                present.toll.count((source, is_hit && window.was_here(source)), (sample.monotonic_ns, weight), is_hit);
            }
        }
    }

    /// What goes on now. Arms what it calls for, and keeps the record.
    pub(super) fn tick(&mut self, daemon: &Arc<Daemon>, snapshot: &Snapshot) -> Situation {
        self.ask_stack(snapshot);
        self.live.lookout.look(snapshot.taken_ns);
        self.count(snapshot);
        self.live.probed = self.prober.found(snapshot.taken_ns);
        let (assessment, features) = self.detector.assess(snapshot.taken_ns, &self.live);
        let assessment = assessment.clone();
        self.notice_restlessness(&features, &assessment);
        self.keep_record(daemon, snapshot, &assessment, &features);
        self.look_after_measures(daemon, snapshot, &assessment);
        if snapshot.mode == Mode::Enforce && !self.to_close.is_empty() {
            self.close_connections(daemon);
        }
        if snapshot.mode != Mode::Stopped {
            self.respond(daemon, &assessment, &features);
        }
        // Where nothing is dropped nobody backs off.
        if snapshot.mode == Mode::Enforce {
            let window = self.detector.window();
            self.prober.tick(daemon, (&assessment, &features, window), snapshot.taken_ns);
            self.heed_canaries(daemon, snapshot.taken_ns);
        }
        // Written once it is done: a disk that stands still holds no measure up.
        self.save_record(daemon, snapshot);
        self.kept.keep(&mut self.detector, snapshot.taken_ns);
        self.known.keep(&mut daemon.dataplane(), &assessment, snapshot.taken_ns);
        self.withdraw(daemon);
        let most_of_a_source = daemon.past().most();
        let open = daemon.incident();
        let (incident, incident_state) =
            (open.as_ref().map(|open| open.id.clone()), open.as_ref().map(|open| open.state));
        Situation {
            verdict: assessment.verdict,
            vectors: assessment.vectors,
            confidence: assessment.confidence,
            reasons: assessment.reasons,
            who: assessment.who,
            incident,
            incident_state,
            measures: self.in_force.len(),
            open_connections: features.held.as_ref().map(|held| held.open),
            held_connections: features.held.as_ref().map(|held| held.slow),
            pressure: self.live.pressure,
            most_of_a_source,
            usual: self.detector.usual(),
        }
    }

    /// Packets of each class since the last time, and bytes.
    fn count(&mut self, snapshot: &Snapshot) {
        let of_class = |class: &Class| {
            let is = |cell: &dataplane::Cell| cell.kind.parts().is_some_and(|(_, of)| of == *class);
            snapshot.sum(is).packets
        };
        let now = Class::ALL.iter().map(of_class).collect::<Vec<_>>();
        let (then, then_ns) = std::mem::replace(&mut self.classes_then, (now.clone(), snapshot.taken_ns));
        let seconds = snapshot.taken_ns.saturating_sub(then_ns) as f64 / 1e9;
        let bytes = snapshot.sum(|_| true).bytes;
        let bytes_then = std::mem::replace(&mut self.bytes_then, bytes);
        if then.len() == now.len() && seconds > 0.0 {
            self.bytes_per_second = bytes.saturating_sub(bytes_then) as f64 / seconds;
            self.live.rates =
                Some(std::array::from_fn(|class| now[class].saturating_sub(then[class]) as f64 / seconds));
        }
    }

    fn ask_stack(&mut self, snapshot: &Snapshot) {
        let sum = |is: &dyn Fn(&dataplane::Cell) -> bool| snapshot.sum(is).packets as f64;
        let passed = |is: fn(Class) -> bool| {
            let of_class = |cell: &dataplane::Cell| cell.kind.parts().is_some_and(|(_, class)| is(class));
            sum(&|cell| cell.verdict == Fate::Pass && of_class(cell))
        };
        let came = Came {
            syns: passed(|class| class == Class::TcpSyn),
            shed: sum(&|cell| cell.verdict == Fate::Drop && cell.reason == Reason::ConnectionCap),
            tcp: passed(|class| matches!(class, Class::TcpSyn | Class::Tcp)),
        };
        let read = || Stack::read(&self.protected);
        if let Some((handshakes, pressure)) = self.stack.take(read, snapshot.taken_ns, came) {
            (self.live.stack, self.live.pressure) = (handshakes, pressure);
        }
    }

    /// Arms what the verdict calls for, or only says so.
    fn respond(&mut self, daemon: &Arc<Daemon>, assessment: &Assessment, features: &Features) {
        let until_ns = monotonic_ns() + STAYS.as_nanos() as u64;
        // What is in force stays while that goes on which it is for, also where it is what holds it.
        let ends_ns = until_ns - PROLONGED_BELOW.as_nanos() as u64;
        let is_refused = |measure: &Measure| self.refused.iter().any(|other| other.measure.does_as(measure));
        let is_due = monotonic_ns() >= self.prolonged_again_ns;
        let is_to_stay = |present: &&mut InForce| {
            let is_for_this = present.measure.is_for(assessment.verdict) && !is_refused(&present.measure);
            is_due && is_for_this && present.until_ns < ends_ns
        };
        for present in self.in_force.iter_mut().filter(is_to_stay) {
            match arm(daemon, &present.measure, &self.live.udp) {
                Ok(_) => present.until_ns = until_ns,
                Err(failed) => {
                    error!(error = describe(&failed), "cannot be prolonged, and is tried again");
                    self.prolonged_again_ns = monotonic_ns() + TRIED_AGAIN_NS;
                }
            }
        }
        for policy in [Policy::Act, Policy::Advise] {
            if let Some(assessment) = daemon.options.respond.under(policy, assessment) {
                let mut proposed = respond(&assessment, features, self.detector.window());
                for measure in &mut proposed {
                    if let Measure::Shed(shed) = measure {
                        *shed = shed.ordered(&assessment, self.known.is_fresh(monotonic_ns()));
                    }
                }
                self.take_measures(daemon, policy, proposed, until_ns);
            }
        }
    }

    fn take_measures(&mut self, daemon: &Arc<Daemon>, policy: Policy, proposed: Vec<Measure>, until_ns: u64) {
        let now_ns = monotonic_ns();
        // What is only advised stands in nobody's way who acts.
        let advised = if policy == Policy::Advise { &self.advised[..] } else { &[] };
        for measure in missing(proposed, &[&self.in_force[..], &self.refused[..], advised].concat(), now_ns) {
            let waits = |failed: &InForce| failed.until_ns > now_ns && failed.measure.is_like(&measure);
            if self.failed.iter().any(waits) {
                continue;
            }
            let is_group = matches!(measure, Measure::Group(_));
            // Whoever has taken it back did not mean only those who were in it by then.
            if is_group && self.refused.iter().any(InForce::is_group) {
                continue;
            }
            let refused = InForce::new(measure.clone(), now_ns, until_ns);
            let words = measure.to_string();
            if policy == Policy::Advise {
                info!(measure = words, "advised");
                note(daemon, &format!("advised: {words}"));
                self.advised.push(refused);
                continue;
            }
            match arm(daemon, &measure, &self.live.udp) {
                Ok(true) => {
                    warn!(measure = words, for_s = STAYS.as_secs(), "armed");
                    daemon.record(&history::Entry::of_this_process("detection", format!("armed: {words}")));
                    if let Some(incident) = &mut *daemon.incident() {
                        incident.acted(&words);
                    }
                    if let Measure::Deny(denied) = &measure
                        && denied.vector == Vector::SlowConnections
                    {
                        self.to_close.push(denied.clone());
                        self.close_connections(daemon);
                    }
                    self.failed.retain(|failed| !failed.measure.is_like(&measure));
                    // Who is named now takes the place of those who were.
                    if is_group {
                        self.in_force.retain(|present| !present.is_group());
                    }
                    self.in_force.push(InForce::new(measure, now_ns, until_ns));
                }
                Ok(false) => {
                    note(daemon, &format!("in force already, by the operator or by default: {words}"));
                    self.refused.push(refused);
                }
                Err(failed) => {
                    // What is in the way may be gone in a moment; said is it once.
                    let again_ns = now_ns + TRIED_AGAIN_NS;
                    match self.failed.iter_mut().find(|before| before.measure.is_like(&measure)) {
                        Some(before) => before.until_ns = again_ns,
                        None => {
                            error!(measure = words, error = describe(&failed), "cannot be armed, and is tried again");
                            note(
                                daemon,
                                &format!("could not be armed, and is tried again: {words}: {}", describe(&failed)),
                            );
                            self.failed.push(InForce::new(measure, now_ns, again_ns));
                        }
                    }
                }
            }
        }
    }

    /// Closes what denied sources hold open. Where nothing is dropped nothing is closed, and it waits until drops are real.
    fn close_connections(&mut self, daemon: &Arc<Daemon>) {
        let told = self.to_close.len();
        self.to_close.retain(|denied| match connections::close(daemon, denied) {
            Some(words) => {
                note(daemon, &words);
                false
            }
            None => true,
        });
        if told > 0 && self.to_close.len() == told {
            note(daemon, "no connection is closed: nothing is dropped either");
        }
    }

    /// What somebody has taken back stays so while this goes on, what hurts is withdrawn, and what is of no use makes room.
    fn look_after_measures(&mut self, daemon: &Arc<Daemon>, snapshot: &Snapshot, assessment: &Assessment) {
        let now_ns = monotonic_ns();
        if self.in_force.is_empty() || now_ns.saturating_sub(self.looked_after_ns) < LOOKED_AFTER_EVERY_NS {
            return;
        }
        self.looked_after_ns = now_ns;
        self.follow_listeners(daemon);
        let taken_back = match look_after(&daemon.dataplane(), &mut self.in_force, now_ns) {
            Ok(taken_back) => taken_back,
            Err(error) => return warn!(%error, "cannot see what is in force"),
        };
        // Nobody has taken it back: without the memory of what was sent it was let go of, and is armed again when that is seen.
        let is_lost = |present: &InForce| {
            let needs = match present.measure {
                Measure::Drop(reason, _) => dataplane::NEED_MEMORY.contains(&reason),
                Measure::Unserved(_) => true,
                _ => false,
            };
            needs && daemon.lacked_memory()
        };
        let mut taken_back = taken_back.into_iter();
        // What ends in a moment may have ended already.
        let is_gone = |present: &mut InForce| {
            taken_back.next() == Some(true) && present.until_ns > now_ns + LOOKED_AFTER_EVERY_NS
        };
        for gone in self.in_force.extract_if(.., is_gone) {
            if is_lost(&gone) {
                note(
                    daemon,
                    &format!("let go of, as what is sent is not seen, and armed again when it is: {}", gone.measure),
                );
                continue;
            }
            let words = gone.measure.to_string();
            warn!(measure = words, "taken back by somebody: it is not armed again while this goes on");
            note(daemon, &format!("taken back by somebody, and not armed again while this goes on: {words}"));
            if let Measure::Unserved(_) = gone.measure
                && let Err(failed) = disarm(daemon, &gone.measure)
            {
                error!(error = describe(&failed), "what it leaves behind cannot be removed");
            }
            self.refused.push(gone);
        }
        self.follow_customers(daemon, snapshot, assessment);
        let hurts = self.in_force.iter().position(|present| present.toll.too_high().is_some());
        let over = self.in_force.iter().position(|present| present.is_over(now_ns));
        for place in hurts.into_iter().chain(over).chain(surplus(&self.in_force, now_ns)).take(1) {
            let present = self.in_force.remove(place);
            let why = match present.toll.too_high() {
                Some(share) => {
                    format!("it dropped {:.1} % of what came from ends that this host speaks with", share * 100.0)
                }
                None if present.is_over(now_ns) => "nobody has been refused for a minute".to_owned(),
                None => "nothing has suited it for a while, and another is needed".to_owned(),
            };
            self.take_back(daemon, present, &why);
        }
    }

    /// What a slice that was left open shows to drop clients is withdrawn, and not armed again while this goes on.
    fn heed_canaries(&mut self, daemon: &Daemon, now_ns: u64) {
        let is_verified = |packet: &Observed| self.live.is_verified(packet.source) == Some(true);
        let window = self.detector.window();
        let hurts = self.canaries.tick(daemon, &self.in_force, (window, &is_verified), now_ns);
        let Some((measure, share)) = hurts else { return };
        let is_this = |present: &InForce| present.measure.does_as(&measure);
        let Some(place) = self.in_force.iter().position(is_this) else { return };
        let present = self.in_force.remove(place);
        self.refused.push(present.clone());
        let share = share * 100.0;
        self.take_back(
            daemon,
            present,
            &format!("a canary shows that {share:.0} % of those whom it drops are clients"),
        );
    }

    /// What begins to listen while nothing else is let through is let through too.
    fn follow_listeners(&mut self, daemon: &Daemon) {
        let given = listeners::given();
        let is_new = |port: &&u16| !self.listening.contains(port) && !given.contains(port);
        let Some(present) = self.in_force.iter().find(|present| matches!(present.measure, Measure::Unserved(_))) else {
            return self.listening.clone_from(&self.live.udp);
        };
        if self.live.udp.iter().any(|port| is_new(&port)) {
            match arm(daemon, &present.measure, &self.live.udp) {
                Ok(_) => self.listening.clone_from(&self.live.udp),
                Err(failed) => error!(error = describe(&failed), "what listens now cannot be let through"),
            }
        }
    }

    /// Where an overload is shed, as many are let in as the host takes from one second to the next.
    fn follow_customers(&mut self, daemon: &Daemon, snapshot: &Snapshot, assessment: &Assessment) {
        let refused = snapshot.sum(|cell| cell.reason == Reason::ConnectionCap).packets;
        let queues = self.live.lookout.take_queues();
        for present in &mut self.in_force {
            let Measure::Shed(shed) = present.measure else { continue };
            let refuses = present.count(refused, snapshot.taken_ns);
            let mut next = shed.ordered(assessment, self.known.is_fresh(snapshot.taken_ns));
            // Where nothing is refused in truth, the queue does not follow. Where nobody has looked, or nothing listens, it stays as it is.
            let queue = queues.as_ref().and_then(|queues| queues.get(&shed.port));
            if let Some(queue) = queue.filter(|_| snapshot.mode == Mode::Enforce) {
                next = next.follow(self.live.pressure.accepted, queue.fullness, refuses);
            }
            let is_reordered = next.order != shed.order;
            let next = Measure::Shed(next);
            match arm(daemon, &next, &self.live.udp) {
                Ok(true) => {
                    if is_reordered {
                        note(daemon, &format!("changed: {next}"));
                    }
                    present.measure = next;
                }
                // It ends with what it is prolonged by.
                Ok(false) => present.until_ns = snapshot.taken_ns,
                Err(failed) => error!(error = describe(&failed), "what is shed cannot be changed"),
            }
        }
    }

    /// Takes a measure back, or keeps it in mind where that fails.
    fn take_back(&mut self, daemon: &Daemon, mut present: InForce, why: &str) {
        let words = present.measure.to_string();
        if daemon.automatic.is_anothers(&present.measure) {
            return note(daemon, &format!("left as it is, since an operator has chosen it himself: {words}"));
        }
        match disarm(daemon, &present.measure) {
            Ok(()) => {
                info!(measure = words, why, "withdrawn");
                daemon.record(&history::Entry::of_this_process("detection", format!("withdrawn: {words}: {why}")));
                note(daemon, &format!("withdrawn: {words}: {why}"));
                if present.toll.too_high().is_some() {
                    self.refused.push(present);
                }
            }
            Err(failed) => {
                error!(measure = words, error = describe(&failed), "cannot be withdrawn");
                present.until_ns = monotonic_ns() + TRIED_AGAIN_NS;
                self.in_force.push(present);
            }
        }
    }

    /// Takes back what has been in force for long enough since the last sign.
    fn withdraw(&mut self, daemon: &Arc<Daemon>) {
        let now_ns = monotonic_ns();
        let ended: Vec<_> = self.in_force.extract_if(.., |present| present.until_ns <= now_ns).collect();
        for ended in ended {
            self.take_back(daemon, ended, "its time is up");
        }
        if daemon.incident().is_none() {
            self.refused.clear();
            self.advised.clear();
            self.failed.clear();
            self.to_close.clear();
            daemon.end_pardons();
        }
    }
}

/// What is refused by a limit of this level.
const fn reason_of(per: Per) -> Reason {
    match per {
        Per::Source => Reason::PacketLimit,
        Per::Subnet => Reason::SubnetLimit,
        Per::Network => Reason::NetworkLimit,
    }
}

pub(super) fn note(daemon: &Daemon, what: &str) {
    if let Some(incident) = &mut *daemon.incident() {
        incident.note("response", what);
    }
}
