//! Plays one scenario behind one wall: the only runner there is.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::flood::Sender;
use super::legit::{Outcome, Outcomes, Planned, is_of_the_host, start};
use super::rig::{Counted, Rig};
use super::service::{During, Service, serve_far};
use super::table::ALWAYS;
use super::walls::{Standing, Wall, history};
use super::watch::{self, Cost, Machine, Said, Series, Watch};
use super::{Condition, Does, Level, Load, Scenario, Timing};
use crate::daemon::Place;
use crate::netns::{Namespace, Running};

/// How all of them are played.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How hard.
    pub level: Level,
    /// How long.
    pub timing: Timing,
    /// What is good has the hardware address of what is not, and the other way round.
    pub swapped: bool,
}

/// What was seen of one.
pub struct Played {
    /// Frames at both ends.
    pub series: Series,
    /// What the daemon said.
    pub said: Vec<Said>,
    /// What clients saw.
    pub outcomes: Vec<Outcome>,
    /// Frames that the protected device has taken in, when the scenario began and in the end.
    pub received: [u64; 2],
    /// SYNs that the filter has answered by itself, the same.
    pub answered: [u64; 2],
    /// Packets that the filter says it has dropped, the same.
    pub dropped: [u64; 2],
    /// Of the daemon: when the quiet phase began, when the scenario did, and when it ended.
    pub costs: Option<[Cost; 3]>,
    /// What the daemon has written down.
    pub incidents: Vec<Value>,
    /// What the filter says of its packets in the end.
    pub reasons: Value,
    /// The daemon's log.
    pub log: String,
    /// Shares of the processors that were idle, and that other machines had.
    pub machine: (f64, f64),
}

impl Played {
    /// All of it, to be looked at later.
    pub fn record(&self) -> Value {
        let series: Vec<_> = self
            .series
            .iter()
            .map(|(at, counted)| {
                let Counted { legit_sent, legit_arrived, attack_sent, attack_arrived } = counted;
                (at, legit_sent, legit_arrived, attack_sent, attack_arrived)
            })
            .collect();
        serde_json::json!({
            "series": series,
            "said": self.said,
            "outcomes": self.outcomes,
            "incidents": self.incidents,
            "reasons": self.reasons,
            "log": self.log,
        })
    }
}

/// Plays it.
///
/// # Errors
/// Where the rig or the wall cannot be made.
pub fn play(scenario: &Scenario, wall: Wall, settings: &Settings, seed: u64) -> Result<Played> {
    let (rig, place) = (Rig::new(settings.swapped)?, Place::new()?);
    let mut standing = Standing::new(wall, &rig, &place)?;
    let begun = Instant::now() + Duration::from_millis(300);
    let plan = Plan::new(scenario, settings, begun, seed);
    let outcomes = Outcomes::new(begun);
    let running = plan.start(&rig, &outcomes)?;
    let watch = Watch::default();
    let nft = standing.nft.take();
    let mut seen = std::thread::scope(|scope| {
        scope.spawn(|| watch.count(&rig, nft.as_ref(), begun));
        if wall.gives_verdicts() {
            scope.spawn(|| watch.ask(&place.socket(), begun));
        }
        let seen = plan.look_on(&rig, &place, &mut standing);
        watch.stop();
        seen
    })?;
    for one in running {
        one.join()??;
    }
    (seen.series, seen.said) = watch.take();
    seen.outcomes = outcomes.take();
    if let Some(daemon) = standing.daemon.take() {
        daemon.stop()?;
    }
    seen.log = std::fs::read_to_string(place.log()).unwrap_or_default();
    seen.incidents = watch::incidents(&history(&place))?;
    Ok(seen)
}

/// A scenario in the time of this run.
struct Plan<'a> {
    scenario: &'a Scenario,
    settings: &'a Settings,
    begun: Instant,
    seed: u64,
}

impl<'a> Plan<'a> {
    const fn new(scenario: &'a Scenario, settings: &'a Settings, begun: Instant, seed: u64) -> Self {
        Self { scenario, settings, begun, seed }
    }

    fn at(&self, seconds: f64) -> Instant {
        self.begun + Duration::from_secs_f64(seconds)
    }

    /// A moment of the scenario.
    fn moment(&self, seconds: f64) -> Instant {
        self.at(self.settings.timing.begins() + seconds * self.settings.timing.stretch)
    }

    fn end(&self) -> Instant {
        self.moment(self.scenario.seconds) + Duration::from_secs_f64(self.settings.timing.after_s)
    }

    fn always(&self) -> Vec<Planned> {
        let loads = ALWAYS.iter().chain(self.scenario.always);
        loads.map(|load| self.planned(*load, self.begun, self.end())).collect()
    }

    fn planned(&self, load: Load, from: Instant, until: Instant) -> Planned {
        let ramp = Duration::from_secs_f64(load.ramp_s * self.settings.timing.stretch);
        Planned { load, from, until, ramp }
    }

    /// What clients of one kind do, in its time.
    fn acts(&self, pick: impl Fn(Does) -> Option<Load>) -> Vec<Planned> {
        let acts = self.scenario.acts.iter();
        acts.filter_map(|act| Some(self.planned(pick(act.does)?, self.moment(act.at), self.moment(act.until))))
            .collect()
    }

    fn service(&self) -> Service {
        let Level { base_rps, machines, .. } = self.settings.level;
        let during = |act: &super::Act| {
            let Does::Service(condition) = act.does else { return None };
            let condition = match condition {
                Condition::Takes(times) => Condition::Takes(times * base_rps),
                Condition::Holds(count) => Condition::Holds(count * machines),
                Condition::Delays(ms) => Condition::Delays(ms),
            };
            Some(During { from: self.moment(act.at), until: self.moment(act.until), condition })
        };
        Service { conditions: self.scenario.acts.iter().filter_map(during).collect() }
    }

    /// Lets everybody loose, each in its namespace.
    fn start(&self, rig: &Rig, outcomes: &Outcomes) -> Result<Vec<Running<Result<()>>>> {
        let (server, world, end) = (&rig.link.server, &rig.link.world, self.end());
        let service = self.service();
        let mut running = vec![on_a_thread(server, service.serve(end))?];
        let (own, of_world): (Vec<_>, Vec<_>) =
            self.always().into_iter().partition(|planned| is_of_the_host(&planned.load));
        let clients = self.acts(|does| if let Does::Clients(load) = does { Some(load) } else { None });
        let bots = self.acts(|does| if let Does::Bots(load) = does { Some(load) } else { None });
        let of_world = [of_world, clients].concat();
        for (namespace, loads, serves) in [(world, of_world, true), (server, own, false), (&rig.attacker, bots, false)]
        {
            let (outcomes, level, seed) = (outcomes.clone(), self.settings.level, self.seed);
            running.push(on_a_thread(namespace, async move {
                if serves {
                    serve_far().await?;
                }
                for (number, planned) in (1..).zip(loads) {
                    start(planned, &level, &outcomes, seed.wrapping_mul(1_000) + number);
                }
                // condition: the end of the run.
                tokio::time::sleep_until(end.into()).await;
                Ok(())
            })?);
        }
        for (number, act) in (1..).zip(self.scenario.acts) {
            let Does::Flood(flood) = act.does else { continue };
            let ((socket, addresses), stretch) = (rig.forge()?, self.settings.timing.stretch);
            let sender = Sender::new(flood, self.settings.level.attack_pps, socket, addresses, self.seed * 77 + number);
            let (begin, end) = (self.moment(act.at), self.moment(act.until));
            running.push(world.spawn(move || {
                sender.send(begin, end, stretch);
                Ok(())
            })?);
        }
        Ok(running)
    }

    /// Notes what is only to be had at certain moments, and restarts what is to be restarted.
    fn look_on(&self, rig: &Rig, place: &Place, standing: &mut Standing) -> Result<Played> {
        let cost = |standing: &Standing| Cost::of(standing.daemon.as_ref()?.pid());
        wait_until(self.at(self.settings.timing.warm_up_s));
        let quiet = cost(standing);
        wait_until(self.moment(0.0));
        let (before, begin, machine) = (counts(rig, place, standing)?.0, cost(standing), Machine::now());
        for act in self.scenario.acts.iter().filter(|act| matches!(act.does, Does::Restart)) {
            wait_until(self.moment(act.at));
            standing.restart(rig, place)?;
        }
        wait_until(self.moment(self.scenario.seconds));
        let (ended, machine) = (cost(standing), Machine::now().since(&machine));
        wait_until(self.end());
        let after = counts(rig, place, standing)?;
        Ok(Played {
            series: Vec::new(),
            said: Vec::new(),
            outcomes: Vec::new(),
            received: [before[0], after.0[0]],
            answered: [before[1], after.0[1]],
            dropped: [before[2], after.0[2]],
            costs: quiet.zip(begin).zip(ended).map(|((quiet, begin), ended)| [quiet, begin, ended]),
            incidents: Vec::new(),
            reasons: after.1,
            log: String::new(),
            machine,
        })
    }
}

/// What the device has received, and of it the filter has answered and dropped.
fn counts(rig: &Rig, place: &Place, standing: &Standing) -> Result<([u64; 3], Value)> {
    let received = rig.link.received()?;
    if standing.daemon.is_none() {
        return Ok(([received, 0, 0], Value::Null));
    }
    let status = watch::status(&place.socket()).context("ask the daemon")?;
    let of = |flow: &str| status["interfaces"][0][flow]["packets"].as_u64().unwrap_or(0);
    Ok(([received, of("answered"), of("dropped")], status["interfaces"][0]["reasons"].clone()))
}

fn wait_until(moment: Instant) {
    // condition: the next moment of the plan.
    std::thread::sleep(moment.saturating_duration_since(Instant::now()));
}

/// Runs something on a thread of its own in a namespace.
fn on_a_thread(
    namespace: &Namespace,
    work: impl Future<Output = Result<()>> + Send + 'static,
) -> Result<Running<Result<()>>> {
    namespace.spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(work)
    })
}

/// Lets this process have as many connections as it may.
///
/// # Errors
/// Where it is not told how many.
pub fn allow_many_connections() -> Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a live structure.
    let is_told = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } == 0;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: as above.
    let is_set = is_told && unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } == 0;
    anyhow::ensure!(is_set, "allow many connections: {}", std::io::Error::last_os_error());
    Ok(())
}
