//! Which server of a Cluster has which keys. The Cluster decides; this is what it said last, and it is asked again
//! when a server says otherwise, is lost, or now and then.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ::redis::{ConnectionInfo, Pipeline, PushInfo, Value, from_redis_value};
use tokio::{
    sync::{Notify, watch},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::warn;

use super::{
    LinkError,
    address::moved,
    link::text,
    server::{Seat, Server, connect},
};

/// As the specification of Redis Cluster has it.
const SLOTS: u16 = 16_384;
/// Primaries of one Cluster: what its own specification recommends at most.
const SERVERS_LIMIT: usize = 1000;
/// How often the Cluster is asked though nothing seems to have changed.
const REFRESH_INTERVAL: Duration = Duration::from_secs(5);
/// How often it is asked at most.
const REFRESH_PAUSE: Duration = Duration::from_millis(200);

/// The servers of a Cluster, by what they have.
pub(super) struct Slots {
    seeds: Vec<ConnectionInfo>,
    owners: Mutex<Arc<Owners>>,
    changed: watch::Sender<u64>,
    pub(super) stale: Arc<Notify>,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

#[derive(Default)]
struct Owners {
    /// First and last slot, in order.
    ranges: Vec<(u16, u16, Arc<Server>)>,
    servers: HashMap<String, Arc<Server>>,
}

impl Slots {
    pub(super) fn new(
        seeds: Vec<ConnectionInfo>,
        changed: watch::Sender<u64>,
        tasks: TaskTracker,
        cancel: CancellationToken,
    ) -> Self {
        Self { seeds, owners: Mutex::default(), changed, stale: Arc::default(), tasks, cancel }
    }

    pub(super) fn server(&self, key: &str) -> Result<Arc<Server>, LinkError> {
        let (slot, owners) = (slot(key.as_bytes()), self.owners());
        let at = owners.ranges.partition_point(|(_, last, _)| *last < slot);
        match owners.ranges.get(at) {
            Some((first, _, server)) if *first <= slot => Ok(Arc::clone(server)),
            _ => {
                self.stale.notify_one();
                let reason = format!("no server of the Cluster has the slot {slot}");
                Err(LinkError::Unreachable { address: "the Cluster".into(), reason })
            }
        }
    }

    pub(super) fn servers(&self) -> Vec<Arc<Server>> {
        self.owners().servers.values().cloned().collect()
    }

    /// Asks again whenever there is a reason to, until it is cancelled.
    pub(super) async fn keep(self: Arc<Self>) {
        let mut is_wrong = false;
        loop {
            let pause = async {
                sleep(REFRESH_PAUSE).await;
                // In time it is asked in any case.
                let _ = timeout(REFRESH_INTERVAL, self.stale.notified()).await;
                self.refresh().await
            };
            tokio::select! {
                refreshed = pause => {
                    if let Err(error) = &refreshed && !is_wrong {
                        warn!(%error, "the Cluster can't be asked who has which slots");
                    }
                    is_wrong = refreshed.is_err();
                }
                () = self.cancel.cancelled() => return,
            }
        }
    }

    pub(super) async fn refresh(&self) -> Result<(), LinkError> {
        let mut question = Pipeline::new();
        question.cmd("CLUSTER").arg("SLOTS");
        let mut last = None;
        for server in self.servers() {
            let answered = match server.wire() {
                Ok(wire) => server.ask(&wire, &question).await,
                Err(error) => Err(error),
            };
            match answered.and_then(|replies| self.take(replies.first(), server.name())) {
                Ok(()) => return Ok(()),
                Err(error) => last = Some(error),
            }
        }
        for seed in &self.seeds {
            let answer = async {
                let mut connection = connect(seed, |_: PushInfo| Ok::<_, ()>(())).await?;
                question.query_async::<Vec<Value>>(&mut connection).await.map_err(|error| {
                    LinkError::Unreachable { address: seed.addr().to_string(), reason: error.to_string() }
                })
            };
            match answer.await.and_then(|replies| self.take(replies.first(), &seed.addr().to_string())) {
                Ok(()) => return Ok(()),
                Err(error) => last = Some(error),
            }
        }
        let reason = "nobody could be asked".to_owned();
        Err(last.unwrap_or(LinkError::Unreachable { address: "the Cluster".into(), reason }))
    }

    /// Takes what `asked` said.
    fn take(&self, answer: Option<&Value>, asked: &str) -> Result<(), LinkError> {
        let wrong =
            |reason: &str| LinkError::Refused { reason: format!("{asked} on CLUSTER SLOTS: {reason}") };
        let ranges = match answer {
            Some(Value::Array(ranges)) => ranges,
            Some(Value::ServerError(error)) => return Err(wrong(&text(error))),
            _ => return Err(wrong("the answer can't be read")),
        };
        let mut owners = Owners::default();
        let before = self.owners();
        let mut started = Vec::new();
        for range in ranges {
            let (first, last, host, port) =
                read_range(range).ok_or_else(|| wrong("a range can't be read"))?;
            // It does not know its own address before another server told it.
            let host = host
                .filter(|host| !host.is_empty())
                .unwrap_or_else(|| asked.rsplit_once(':').map_or(asked, |(host, _)| host).to_owned());
            let name = format!("{host}:{port}");
            let server = match owners.servers.get(&name).or_else(|| before.servers.get(&name)) {
                Some(server) => Arc::clone(server),
                None if owners.servers.len() >= SERVERS_LIMIT => return Err(wrong("too many servers")),
                None => {
                    // There is one seed at least.
                    let seat = Seat::Fixed(moved(&self.seeds[0], &host, port));
                    let server = Server::new(
                        seat,
                        self.changed.clone(),
                        Arc::clone(&self.stale),
                        self.cancel.child_token(),
                    );
                    started.push(Arc::clone(&server));
                    server
                }
            };
            owners.servers.insert(name, Arc::clone(&server));
            owners.ranges.push((first, last, server));
        }
        if owners.ranges.is_empty() {
            return Err(wrong("no slot is anybody's"));
        }
        owners.ranges.sort_by_key(|(first, ..)| *first);
        for server in started {
            self.tasks.spawn(server.keep());
        }
        for (name, server) in &before.servers {
            if !owners.servers.contains_key(name) {
                server.cancel.cancel();
            }
        }
        let is_same = |((a, b, server), (c, d, other)): (&(_, _, Arc<Server>), &(_, _, Arc<Server>))| {
            a == c && b == d && Arc::ptr_eq(server, other)
        };
        let unchanged = owners.ranges.len() == before.ranges.len()
            && owners.ranges.iter().zip(&before.ranges).all(is_same);
        if !unchanged {
            *self.owners.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(owners);
            self.changed.send_modify(|count| *count += 1);
        }
        Ok(())
    }

    fn owners(&self) -> Arc<Owners> {
        Arc::clone(&self.owners.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// First and last slot, and the primary's host and port.
fn read_range(range: &Value) -> Option<(u16, u16, Option<String>, u16)> {
    let Value::Array(parts) = range else { return None };
    let [first, last, Value::Array(primary), ..] = parts.as_slice() else { return None };
    let number = |value: &Value| from_redis_value::<u16>(value.clone()).ok();
    let host = from_redis_value::<Option<String>>(primary.first()?.clone()).ok()?;
    Some((number(first)?, number(last)?, host, number(primary.get(1)?)?))
}

/// The slot of a key, as the specification of Redis Cluster has it: of what is in the first braces, if anything is.
fn slot(key: &[u8]) -> u16 {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        let len = rest.iter().position(|byte| *byte == b'}')?;
        (len > 0).then(|| &rest[..len])
    });
    crc16(tag.unwrap_or(key)) % SLOTS
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_the_slot_that_redis_gives_it() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        // As `CLUSTER KEYSLOT` of Redis 7.0 has them.
        for (key, expected) in [("b", 3300), ("foo", 12182), ("x:on:{foo}", 12182), ("{}foo", 9500)] {
            assert_eq!(slot(key.as_bytes()), expected, "{key}");
        }
    }
}
