//! What is measured. Every run has a server of its own, so that no run finds what another one left.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::ValueEnum;

use crate::{
    load::{Load, Outcome, Timetable},
    peer::Peer,
    server::{self, Server, Usage},
};

/// Above this share of its core, the load is what was measured, and the server does at least as much.
const LOAD_LIMIT: f64 = 0.9;
/// The server's and the load's.
const CORES: usize = server::CORE + 2;
/// Above this share of the cores, others disturbed a run.
const OTHERS_LIMIT: f64 = 0.1;
/// A server that does next to nothing for as long has done all that its start, or a connection, brings.
const QUIET: Duration = Duration::from_millis(300);
/// Two of Linux's ticks: timers, a collector of garbage.
const NEXT_TO_NOTHING: Duration = Duration::from_millis(20);
/// One that is not quiet by then never is.
const RESTLESS: Duration = Duration::from_secs(5);
/// Until memory that is only needed on the way is given back, where it is at all.
const IDLE_SETTLE: Duration = Duration::from_secs(2);
/// Until what is missing is lost, where nothing else is said.
const GRACE: Duration = Duration::from_secs(5);
/// From one rate to the next, while the search looks for one that is too high.
const STEP: f64 = 1.5;
/// So many times the last interval is halved.
const REFINEMENTS: u32 = 2;
/// From a rate that held once, and not in most runs, to the next that is tried.
const BACK: f64 = 1.1;
/// The search gives up a peer that holds none of so many rates, and does not go up further than so many.
const MAX_STEPS: u32 = 12;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Workload {
    /// 1 publisher, 1,000 subscribers, 50 messages a second
    Fanout,
    /// The same, as fast as it goes with p99 under a second
    FanoutMax,
    /// 2,000 pairs, 8,000 messages a second
    Pairs,
    /// 2,000 pairs, 20,000 messages a second
    PairsBusy,
    /// The same, as fast as it goes with p99 under 100 ms
    PairsMax,
    /// 10,000 subscribers of one channel that say and hear nothing
    Idle,
    /// 5,000 clients that connect and subscribe, 64 at a time
    Connects,
}

/// How long and how often.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// The median of so many counts.
    pub(crate) runs: usize,
    pub(crate) duration: Duration,
    /// Of each rate that a search tries.
    pub(crate) step: Duration,
}

pub(crate) struct Measured {
    pub(crate) value: f64,
    /// What a reader has to know to believe the value.
    pub(crate) notes: Vec<String>,
}

/// Who is connected.
#[derive(Clone, Copy)]
struct Shape {
    channels: usize,
    subscribers: usize,
}

const FANOUT: Shape = Shape { channels: 1, subscribers: 1000 };
const PAIRS: Shape = Shape { channels: 2000, subscribers: 2000 };
const IDLE: Shape = Shape { channels: 1, subscribers: 10_000 };
const CONNECTS: Shape = Shape { channels: 1, subscribers: 5000 };

impl Workload {
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Fanout => "fan-out 1 → 1,000, 50,000 deliveries/s: server CPU µs a delivery",
            Self::FanoutMax => "fan-out 1 → 1,000, p99 < 1 s: deliveries/s",
            Self::Pairs => "2,000 pairs, 8,000 deliveries/s: server CPU µs a delivery",
            Self::PairsBusy => "2,000 pairs, 20,000 deliveries/s: server CPU µs a delivery",
            Self::PairsMax => "2,000 pairs, p99 < 100 ms: deliveries/s",
            Self::Idle => "10,000 idle, subscribed: server memory KiB each",
            Self::Connects => "5,000 connect and subscribe: server CPU µs each",
        }
    }

    pub(crate) fn more_is_better(self) -> bool {
        matches!(self, Self::FanoutMax | Self::PairsMax)
    }

    pub(crate) fn measure(self, peer: &dyn Peer, pace: &Pace) -> anyhow::Result<Measured> {
        match self {
            Self::Fanout => cost(peer, FANOUT, 50.0, pace),
            Self::Pairs => cost(peer, PAIRS, 8000.0, pace),
            Self::PairsBusy => cost(peer, PAIRS, 20_000.0, pace),
            Self::FanoutMax => most(peer, FANOUT, 100.0, Duration::from_secs(1), pace),
            Self::PairsMax => most(peer, PAIRS, 20_000.0, Duration::from_millis(100), pace),
            Self::Idle => growth(peer, IDLE, false, IDLE_SETTLE, pace, |before, after| {
                after.memory_kib.saturating_sub(before.memory_kib) as f64
            }),
            Self::Connects => growth(peer, CONNECTS, true, Duration::ZERO, pace, |before, after| {
                (after.cpu - before.cpu).as_secs_f64() * 1e6
            }),
        }
    }
}

/// One run at one rate.
struct Sample {
    outcome: Outcome,
    cpu: Duration,
    /// How much of the two cores neither the server nor the load used.
    others_share: f64,
}

impl Sample {
    fn take(peer: &dyn Peer, shape: Shape, timetable: &Timetable) -> anyhow::Result<Self> {
        let server = Server::start(peer)?;
        let mut load = Load::new(peer, server.port)?;
        let run = |load: &mut Load<'_>| {
            load.subscribe(shape.subscribers, shape.channels, false)?;
            load.make_publishers(shape.channels)?;
            let before = quiet(&server, load)?;
            let (began, busy) = (Instant::now(), server::busy(CORES)?);
            let outcome = load.publish(timetable)?;
            let cpu = server.usage()?.cpu - before.cpu;
            let others = (server::busy(CORES)? - busy).saturating_sub(cpu + outcome.load_cpu);
            let others_share = others.as_secs_f64() / began.elapsed().as_secs_f64() / CORES as f64;
            Ok(Self { outcome, cpu, others_share })
        };
        let sample: anyhow::Result<Self> = run(&mut load);
        // The clients go first: a server with none left ends at once.
        drop(load);
        sample.with_context(|| server.said())
    }

    fn cpu_us(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.outcome.received as f64
    }

    fn delivered(&self) -> f64 {
        self.outcome.received as f64 / self.outcome.took.as_secs_f64()
    }

    fn p99(&self) -> Duration {
        Duration::from_micros(self.outcome.latency_us.value_at_quantile(0.99))
    }

    /// Each delivery once and in order, or what was wrong with them.
    fn check(&self) -> Result<(), String> {
        let Outcome { expected, received, disordered, .. } = self.outcome;
        if received == expected && disordered == 0 {
            return Ok(());
        }
        let lost = expected.saturating_sub(received);
        let heard = &self.outcome.heard;
        let heard = if heard.is_empty() { String::new() } else { format!("; heard last: {heard}") };
        Err(format!(
            "of {expected} deliveries {lost} were lost, {disordered} came twice or out of order{heard}"
        ))
    }

    fn note_disturbance(&self, notes: &mut Vec<String>) {
        if self.others_share > OTHERS_LIMIT {
            let share = self.others_share * 100.0;
            notes.push(format!("other programs took {share:.0} % of the two cores: measure it again"));
        }
        if self.outcome.load_share > LOAD_LIMIT {
            let share = self.outcome.load_share * 100.0;
            notes.push(format!("the load needed {share:.0} % of its core, so the server may do better"));
        }
    }
}

/// What a delivery costs at a rate that every server should bear.
fn cost(peer: &dyn Peer, shape: Shape, rate: f64, pace: &Pace) -> anyhow::Result<Measured> {
    let timetable = Timetable { rate, duration: pace.duration, grace: GRACE };
    let mut notes = Vec::new();
    let mut values = Vec::new();
    for _ in 0..pace.runs {
        let sample = Sample::take(peer, shape, &timetable)?;
        if sample.outcome.received == 0 {
            bail!("nothing arrived");
        }
        notes.extend(sample.check().err());
        sample.note_disturbance(&mut notes);
        values.push(sample.cpu_us());
        eprintln!("    {}", told(&sample));
    }
    Ok(Measured { value: median(values), notes })
}

/// The highest rate at which all arrives in time: what was delivered at it.
fn most(peer: &dyn Peer, shape: Shape, first: f64, limit: Duration, pace: &Pace) -> anyhow::Result<Measured> {
    let mut search = Search { peer, shape, limit, step: pace.step, beyond: String::new() };
    let (mut low, mut high) = (None, None);
    let mut rate = first;
    for _ in 0..MAX_STEPS {
        match search.holds(rate)? {
            Some(sample) => low = Some((rate, sample)),
            None => high = Some(rate),
        }
        rate = match (&low, high) {
            (Some(_), Some(_)) => break,
            (Some((low, _)), None) => low * STEP,
            (None, high) => high.unwrap_or(rate) / STEP,
        };
    }
    let (mut rate, mut best) = low.with_context(|| format!("no rate held: {}", search.beyond))?;
    for _ in 0..REFINEMENTS {
        let Some(above) = high else { break };
        let middle = (rate * above).sqrt();
        match search.holds(middle)? {
            Some(sample) => (rate, best) = (middle, sample),
            None => high = Some(middle),
        }
    }
    // What most runs bear, and not only a lucky one.
    let mut values = vec![best.delivered()];
    for _ in 0..MAX_STEPS {
        for _ in values.len()..pace.runs {
            if let Some(sample) = search.holds(rate)? {
                values.push(sample.delivered());
                best = sample;
            }
        }
        if values.len() * 2 > pace.runs {
            let mut notes = Vec::new();
            best.note_disturbance(&mut notes);
            if !search.beyond.is_empty() {
                notes.push(format!("the limit was not the latency: {}", search.beyond));
            }
            return Ok(Measured { value: median(values), notes });
        }
        rate /= BACK;
        values.clear();
    }
    bail!("no rate held more than once: {}", search.beyond)
}

struct Search<'a> {
    peer: &'a dyn Peer,
    shape: Shape,
    limit: Duration,
    step: Duration,
    /// Why the lowest rate that was too high was, where it was not for its latency.
    beyond: String,
}

impl Search<'_> {
    fn holds(&mut self, rate: f64) -> anyhow::Result<Option<Sample>> {
        let timetable = Timetable { rate, duration: self.step, grace: self.limit };
        let sample = match Sample::take(self.peer, self.shape, &timetable) {
            Ok(sample) => sample,
            // A server that gives its clients up under a load does not hold it.
            Err(error) => {
                self.beyond = format!("{error:#}");
                eprintln!("    {rate:.0}/s: {}", self.beyond);
                return Ok(None);
            }
        };
        let late = sample.p99() > self.limit;
        let wrong = sample.check();
        eprintln!(
            "    {rate:.0}/s: {}{}",
            told(&sample),
            if late || wrong.is_err() { ": too much" } else { "" }
        );
        if late {
            self.beyond.clear();
            return Ok(None);
        }
        if let Err(wrong) = wrong {
            // What is still on its way when the time is up is late, and not lost.
            self.beyond.clear();
            if sample.outcome.took + self.limit / 2 < self.step + self.limit {
                self.beyond = wrong;
            }
            return Ok(None);
        }
        Ok(Some(sample))
    }
}

/// What so many clients need: something that grew while they connected, for each.
fn growth(
    peer: &dyn Peer,
    shape: Shape,
    named: bool,
    settle: Duration,
    pace: &Pace,
    grown: impl Fn(Usage, Usage) -> f64,
) -> anyhow::Result<Measured> {
    let mut values = Vec::new();
    for _ in 0..pace.runs {
        let server = Server::start(peer)?;
        let mut load = Load::new(peer, server.port)?;
        let before = quiet(&server, &mut load)?;
        let connected = load.subscribe(shape.subscribers, shape.channels, named);
        connected.and_then(|()| load.settle(settle)).with_context(|| server.said())?;
        let value = grown(before, quiet(&server, &mut load)?) / shape.subscribers as f64;
        eprintln!("    {value:.2}");
        values.push(value);
        drop(load);
    }
    Ok(Measured { value: median(values), notes: Vec::new() })
}

/// Waits until a server is, so that nothing is charged to what comes next; and says what it has used.
fn quiet(server: &Server, load: &mut Load<'_>) -> anyhow::Result<Usage> {
    let deadline = Instant::now() + RESTLESS;
    let mut before = server.usage()?;
    loop {
        load.settle(QUIET)?;
        let now = server.usage()?;
        if now.cpu.saturating_sub(before.cpu) < NEXT_TO_NOTHING || Instant::now() > deadline {
            return Ok(now);
        }
        before = now;
    }
}

fn told(sample: &Sample) -> String {
    let latency = |quantile| sample.outcome.latency_us.value_at_quantile(quantile) as f64 / 1000.0;
    format!(
        "{} of {} delivered, {:.0}/s, {:.2} µs each, p50 {:.2} ms, p99 {:.2} ms, load {:.0} %",
        sample.outcome.received,
        sample.outcome.expected,
        sample.delivered(),
        sample.cpu_us(),
        latency(0.5),
        latency(0.99),
        sample.outcome.load_share * 100.0
    )
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
