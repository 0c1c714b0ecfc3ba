//! What detection would see of clients and floods that are given by their rates alone: the features of a second, worked out
//! and not counted, so that months pass in seconds. The same for the same random numbers.

use floodwall::detect::{Aggregate, Assessment, Features, Group, Handshakes, Openers, Usually, Vector, Verdict};
use floodwall_common::packet::Source;

use crate::captures::made::Random;

/// Samples that a window holds.
const SAMPLES: f64 = 65_536.0;
/// Samples that sources are counted among.
const SPREAD: f64 = 4_096.0;
/// Connections that a share is of at least.
const ENOUGH: f64 = 20.0;

/// Packets of one kind, in a second.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    /// In which they show.
    pub group: Group,
    /// How many.
    pub packets: f64,
    /// Whom they may come from, each as often.
    pub sources: f64,
    /// The share of the one that sends most.
    pub most: f64,
    /// Where they go, where that is one port.
    pub port: Option<u16>,
    /// Shares of them: SYNs without options, SYN-ACKs, impossible headers, from amplifiers, of one length.
    pub bare: f64,
    /// See [`Self::bare`].
    pub syn_acks: f64,
    /// See [`Self::bare`].
    pub malformed: f64,
    /// See [`Self::bare`].
    pub from_amplifiers: f64,
    /// See [`Self::bare`].
    pub one_length: f64,
    /// The share from ends that the host has not spoken with.
    pub strangers: f64,
}

impl Stream {
    /// So many packets from so many sources.
    pub fn of(group: Group, packets: f64, sources: f64) -> Self {
        Self {
            group,
            packets,
            sources,
            most: 0.0,
            port: None,
            bare: 0.0,
            syn_acks: 0.0,
            malformed: 0.0,
            from_amplifiers: 0.0,
            one_length: 0.1,
            strangers: 0.0,
        }
    }

    /// Different sources among so many packets of it.
    fn distinct(&self, packets: f64) -> f64 {
        (self.sources * (1.0 - (-packets / self.sources).exp())).max(1.0)
    }
}

/// Connections begun in the last seconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attempts {
    /// So many that are old enough to tell.
    pub old: f64,
    /// Of these, so many that are too old to be retried for the first time.
    pub very_old: f64,
    /// The share that the host answers.
    pub answered: f64,
    /// The share that is completed.
    pub completed: f64,
    /// The share of those not completed whose SYN comes again.
    pub retried: f64,
}

/// The features of a second of streams and attempts; of what is completed, one source has the most.
pub fn features(streams: &[Stream], attempts: &[Attempts], per_second: f64, most: f64, is_regular: bool) -> Features {
    let all = streams.iter().map(|stream| stream.packets).sum();
    Features {
        per_second: all,
        groups: Group::ALL.map(|group| aggregate(streams, group, all)),
        handshakes: handshakes(attempts, per_second, most, is_regular),
        openers: Openers::default(),
        ..Features::default()
    }
}

fn aggregate(streams: &[Stream], group: Group, all: f64) -> Aggregate {
    let of_group: Vec<_> = streams.iter().filter(|stream| stream.group == group && stream.packets >= 1.0).collect();
    let packets: f64 = of_group.iter().map(|stream| stream.packets).sum();
    if packets < 1.0 {
        return Aggregate::default();
    }
    let part = |stream: &Stream| stream.packets / packets;
    let mean = |share: fn(&Stream) -> f64| of_group.iter().map(|stream| part(stream) * share(stream)).sum::<f64>();
    let spread = packets.min(SPREAD);
    let distinct = |stream: &Stream| stream.distinct(part(stream) * spread);
    let sources = of_group.iter().map(|stream| distinct(stream)).sum::<f64>().min(spread);
    let bits = |stream: &Stream| part(stream) * (distinct(stream).log2() - part(stream).log2());
    let entropy: f64 = of_group.iter().map(|stream| bits(stream)).sum();
    let top = of_group.iter().map(|stream| part(stream) * stream.most.max(1.0 / distinct(stream)));
    let to = |port| of_group.iter().filter(|stream| stream.port == Some(port)).map(|stream| part(stream)).sum::<f64>();
    let ports = of_group.iter().filter_map(|stream| Some((stream.port?, to(stream.port?))));
    Aggregate {
        packets,
        samples: packets.min(SAMPLES) as usize,
        per_second: packets,
        share: packets / all,
        sources: sources as usize,
        per_source: spread / sources,
        entropy: if spread > 1.0 { (entropy / spread.log2()).min(1.0) } else { 0.0 },
        top_source: top.max_by(f64::total_cmp).map(|share| (Source::V4(0xc000_0201), share)),
        source_port: None,
        destination_port: ports.max_by(|a, b| a.1.total_cmp(&b.1)),
        one_length: of_group.iter().map(|stream| part(stream) * stream.one_length).fold(0.0, f64::max),
        from_amplifiers: mean(|stream| stream.from_amplifiers),
        bare: mean(|stream| stream.bare),
        syn_acks: mean(|stream| stream.syn_acks),
        malformed: mean(|stream| stream.malformed),
        held: 0.0,
        // Of these no stream says anything.
        one_beginning: 0.0,
        large: 0.0,
        fragmented: 0.0,
        new_ports: 0.0,
        protocols: 1,
        alone: 0.0,
        networks: 0.0,
        of_source: [0; 2],
        unlike: None,
        rotating: 0.0,
        strangers: Some(mean(|stream| stream.strangers)),
    }
}

fn handshakes(attempts: &[Attempts], per_second: f64, most: f64, is_regular: bool) -> Handshakes {
    let sum = |count: fn(&Attempts) -> f64| attempts.iter().map(count).sum::<f64>();
    let share = |part: f64, all: f64| (all >= ENOUGH).then(|| part / all);
    let (old, completed) = (sum(|of| of.old), sum(|of| of.old * of.completed));
    let answered = sum(|of| of.old * of.answered);
    let abandoned = sum(|of| of.very_old * (1.0 - of.completed));
    Handshakes {
        begun: old as usize,
        completed: share(completed, old),
        answered: share(answered, old),
        acknowledged: share(completed, answered),
        retried: share(sum(|of| of.very_old * (1.0 - of.completed) * of.retried), abandoned),
        completed_per_second: per_second,
        most_of_one_source: most,
        is_regular: Some(is_regular),
    }
}

/// Clients of a site, as they are in one second.
#[derive(Clone, Debug)]
pub struct Site {
    /// What they send.
    pub streams: Vec<Stream>,
    /// What becomes of their connections.
    pub attempts: Attempts,
    /// Connections completed in a second.
    pub connections: f64,
    most: f64,
    is_regular: bool,
}

impl Site {
    /// So many new connections a second of real clients. What they have in common is drawn from what captures and crowds have.
    pub fn of(connections: f64, random: &mut Random) -> Self {
        let most = random.between(0.005..0.05).max(1.0 / connections.max(1.0));
        let clients = connections / random.between(1.0..3.25);
        let port = Some(443);
        let syns = Stream { most, port, one_length: 0.6, ..Stream::of(Group::Syn, connections * 1.02, clients) };
        let segments = connections * random.between(6.0..23.0);
        let strangers = random.between(0.0..0.02);
        let tcp = Stream { most, port, strangers, one_length: 0.5, ..Stream::of(Group::Tcp, segments, clients * 2.0) };
        let udp = Stream::of(Group::Udp, random.between(0.0..0.05) * segments, 20.0);
        let replies = Stream { strangers: 0.5, ..Stream::of(Group::TcpReplies, 0.01 * segments, clients) };
        let pings = Stream { strangers: 0.9, ..Stream::of(Group::Icmp, random.between(0.0..5.0), 3.0) };
        let attempts = Attempts {
            old: connections * 3.5,
            very_old: connections * 2.5,
            answered: random.between(0.99..1.0),
            completed: random.between(0.97..0.99),
            retried: random.between(0.0..0.9),
        };
        let is_regular = random.part() < 0.7;
        Self {
            streams: vec![syns, tcp, udp, replies, pings],
            attempts,
            connections,
            most: most * connections,
            is_regular,
        }
    }

    /// Packets a second.
    pub fn per_second(&self) -> f64 {
        self.streams.iter().map(|stream| stream.packets).sum()
    }

    /// What is seen of them, and of a flood beside them.
    pub fn features(&self, flood: &[Stream], begun: &[Attempts]) -> Features {
        let streams = [&self.streams, flood].concat();
        let attempts = [&[self.attempts], begun].concat();
        features(&streams, &attempts, self.connections, self.most, self.is_regular)
    }
}

/// A kind of flood: what a packet of it is like.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// What it is to be called.
    pub vector: Vector,
    like: Stream,
    answered: f64,
}

impl Kind {
    /// A flood of this kind, as those that were captured are; from forged addresses, reflectors or bots.
    pub fn of(vector: Vector, random: &mut Random) -> Self {
        let many =
            |random: &mut Random, range: std::ops::Range<f64>| random.between(range.start.ln()..range.end.ln()).exp();
        let reflectors = many(random, 500.0..30_000.0);
        let anybody = if random.part() < 0.5 { 1e9 } else { many(random, 500.0..20_000.0) };
        let sources = match vector {
            Vector::TcpReflection | Vector::Amplification => reflectors,
            Vector::SynFlood => 1e9,
            _ => anybody,
        };
        let one_length = random.between(0.02..1.0);
        let port = (random.part() < 0.5).then_some(443);
        let like = Stream { port, one_length, strangers: 1.0, ..Stream::of(vector.group(), 0.0, sources) };
        let like = match vector {
            Vector::SynFlood if random.part() < 0.7 => Stream { bare: 1.0, ..like },
            Vector::TcpReflection => Stream { syn_acks: random.between(0.6..1.0), ..like },
            Vector::Amplification => Stream { from_amplifiers: random.between(0.93..1.0), ..like },
            _ => like,
        };
        Self { vector, like, answered: random.between(0.3..1.0) }
    }

    /// So many packets of it in the last second.
    pub fn stream(&self, packets: f64) -> Stream {
        Stream { packets, ..self.like }
    }

    /// What becomes of the connections that it begins, where it does: so many old enough to tell, and too old to be retried.
    pub fn attempts(&self, old: f64, very_old: f64) -> Attempts {
        match self.vector {
            Vector::SynFlood => Attempts { old, very_old, answered: self.answered, ..Attempts::default() },
            _ => Attempts::default(),
        }
    }
}

/// What is usual, learned as the shipped detector does: slowly, and only while nothing goes on.
#[derive(Clone, Debug, Default)]
pub struct Usual {
    groups: Option<[f64; Group::ALL.len()]>,
    connections: f64,
}

impl Usual {
    /// Follows what is there for so many seconds, but where it is called something, or nearly.
    pub fn learn(&mut self, features: &Features, found: &Assessment, seconds: f64) {
        const TIME: f64 = 60.0;
        if found.verdict != Verdict::Normal || found.confidence <= 0.5 {
            return;
        }
        let share = 1.0 - (-seconds / TIME).exp();
        let present = features.groups.each_ref().map(|group| group.per_second);
        let Some(groups) = &mut self.groups else {
            (self.groups, self.connections) = (Some(present), features.handshakes.completed_per_second);
            return;
        };
        for (usual, present) in groups.iter_mut().zip(present) {
            *usual += (present - *usual) * share;
        }
        self.connections += (features.handshakes.completed_per_second - self.connections) * share;
    }
}

impl Usually for Usual {
    fn packets(&self, group: Group) -> Option<f64> {
        Some(self.groups?[group as usize])
    }

    fn connections(&self) -> Option<f64> {
        self.groups.map(|_| self.connections)
    }
}
