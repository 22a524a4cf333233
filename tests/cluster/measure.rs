//! How a run felt: what a history says of times, second by second.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    time::Duration,
};

use xpush::client::Via;

use crate::{
    client::Recovery,
    history::{Event, Message, Record},
};

/// A message that takes longer is late.
pub(crate) const LATE: Duration = Duration::from_secs(1);
/// In a second that is normal, so many in a hundred are late at most.
const LATE_IN_A_HUNDRED: usize = 1;
/// Seconds in a row that have to be normal.
const NORMAL_FOR: u64 = 3;

/// One second's messages, by when they were published.
#[derive(Debug, Default, Clone, Copy)]
struct Second {
    published: usize,
    /// Not acknowledged in time.
    late: usize,
    delivered: usize,
    /// Not delivered in time.
    delivered_late: usize,
}

/// A run, second by second.
pub(crate) struct Times {
    seconds: BTreeMap<u64, Second>,
    acknowledged: Vec<Duration>,
    delivered: Vec<Duration>,
}

impl Times {
    pub(crate) fn of(records: &[Record]) -> Self {
        let mut times = Self { seconds: BTreeMap::new(), acknowledged: Vec::new(), delivered: Vec::new() };
        // When it was published, and whether it was answered.
        let mut invoked: HashMap<Message, (Duration, bool)> = HashMap::new();
        for record in records {
            match &record.event {
                Event::Invoked(_, message) => {
                    invoked.entry(*message).or_insert_with(|| {
                        times.seconds.entry(record.at.as_secs()).or_default().published += 1;
                        (record.at, false)
                    });
                }
                Event::Acknowledged { message, .. } => {
                    if let Some((at, answered)) = invoked.get_mut(message).filter(|(_, answered)| !*answered)
                    {
                        *answered = true;
                        let took = record.at - *at;
                        times.acknowledged.push(took);
                        times.seconds.entry(at.as_secs()).or_default().late += usize::from(took > LATE);
                    }
                }
                Event::Delivered { message, .. } => {
                    if let Some((at, _)) = invoked.get(message) {
                        let took = record.at - *at;
                        times.delivered.push(took);
                        let second = times.seconds.entry(at.as_secs()).or_default();
                        second.delivered += 1;
                        second.delivered_late += usize::from(took > LATE);
                    }
                }
                _ => {}
            }
        }
        for (at, answered) in invoked.values() {
            times.seconds.entry(at.as_secs()).or_default().late += usize::from(!answered);
        }
        times.acknowledged.sort_unstable();
        times.delivered.sort_unstable();
        times
    }

    /// From a moment on, how long it took until messages were acknowledged and delivered in time again, as far as it can
    /// be told at `now`. `None`: they are not yet.
    pub(crate) fn normal_after(&self, from: Duration, now: Duration) -> Option<Duration> {
        let is_normal = |second: u64| {
            self.seconds.get(&second).is_some_and(|second| {
                second.published > 0
                    && second.late * 100 <= second.published * LATE_IN_A_HUNDRED
                    && second.delivered_late * 100 <= second.delivered * LATE_IN_A_HUNDRED
            })
        };
        // What was published later may still be late.
        let end = now.saturating_sub(LATE).as_secs();
        let first = from.as_secs();
        let begins = first..(end + 1).saturating_sub(NORMAL_FOR).max(first);
        let normal = begins.into_iter().find(|&second| (second..second + NORMAL_FOR).all(is_normal))?;
        Some(Duration::from_secs(normal).saturating_sub(from))
    }

    /// One line a second.
    pub(crate) fn by_second(&self) -> String {
        let lines = self.seconds.iter().map(|(at, second)| {
            let Second { published, late, delivered, delivered_late } = second;
            format!("second {at}: {late} of {published} acknowledged late, {delivered_late} of {delivered} delivered late")
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Messages a second, while there were any.
    pub(crate) fn rate(&self) -> f64 {
        let published: usize = self.seconds.values().map(|second| second.published).sum();
        published as f64 / self.seconds.values().filter(|second| second.published > 0).count().max(1) as f64
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [ack50, ack99, ack_most] = spread(&self.acknowledged);
        let [got50, got99, got_most] = spread(&self.delivered);
        write!(
            f,
            "{:.0} messages/s; acknowledged after p50 {ack50:?}, p99 {ack99:?}, at most {ack_most:?}; \
             delivered after p50 {got50:?}, p99 {got99:?}, at most {got_most:?}",
            self.rate()
        )
    }
}

/// p50, p99 and the most, of what is sorted.
fn spread(sorted: &[Duration]) -> [Duration; 3] {
    let at = |part: f64| {
        let index = ((sorted.len() as f64 * part) as usize).min(sorted.len().saturating_sub(1));
        let micros = sorted.get(index).map_or(0, |took| took.as_micros() as u64);
        Duration::from_micros(micros)
    };
    [at(0.5), at(0.99), at(1.0)]
}

/// How long something took, each time.
pub(crate) struct Took(Vec<Duration>);

impl Took {
    pub(crate) fn of(mut took: Vec<Duration>) -> Self {
        took.sort_unstable();
        Self(took)
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn p99(&self) -> Duration {
        spread(&self.0)[1]
    }
}

impl fmt::Display for Took {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p99, most] = spread(&self.0);
        write!(f, "p50 {p50:?}, p99 {p99:?}, at most {most:?}")
    }
}

/// How long clients were away.
pub(crate) struct Away(Took);

impl Away {
    pub(crate) fn of<'a>(recoveries: impl Iterator<Item = &'a Recovery>) -> Self {
        Self(Took::of(recoveries.map(|recovery| recovery.took).collect()))
    }

    /// Of each wire by itself.
    pub(crate) fn by_wire(recoveries: &[Recovery]) -> String {
        let of = |via| Self::of(recoveries.iter().filter(|recovery| recovery.via == via));
        let wires = [Via::Quic, Via::Webtransport, Via::Websocket, Via::Longpoll];
        wires.map(|via| format!("{via:?}: {}", of(via))).join("\n")
    }

    pub(crate) fn count(&self) -> usize {
        self.0.count()
    }

    pub(crate) fn p99(&self) -> Duration {
        self.0.p99()
    }
}

impl fmt::Display for Away {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} times a client was away: {}", self.count(), self.0)
    }
}

/// Seconds of processor time that a process took so far.
pub(crate) fn cpu(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Behind the name, which may have spaces: the state is the third field, the times the 14th and 15th.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: f64 = fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    ticks / 100.0
}
