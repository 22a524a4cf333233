//! How fast one publisher may publish: a token bucket each, refilled by the clock. It is the publisher's, not the
//! connection's, or a new connection would be a new allowance.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::publication::Publisher;

/// A bucket holds what may come at once: this long of the steady rate.
const BURST: Duration = Duration::from_secs(2);

/// Buckets beyond which those are forgotten that are full again, and that nobody holds.
const BUCKETS_KEPT: usize = 10_000;

/// The allowances of all publishers of a node.
pub struct Rates {
    per_second: AtomicU32,
    allowances: Mutex<Allowances>,
}

struct Allowances {
    by_publisher: HashMap<Publisher, Arc<Allowance>>,
    /// Looked through when it has grown to this: twice what was left the last time.
    look_at: usize,
}

/// What one publisher may publish, over all of its connections.
pub struct Allowance(Mutex<Rate>);

impl Rates {
    /// `0` is no limit.
    #[must_use]
    pub fn per_second(per_second: u32) -> Self {
        let allowances = Allowances { by_publisher: HashMap::new(), look_at: BUCKETS_KEPT };
        Self { per_second: AtomicU32::new(per_second), allowances: Mutex::new(allowances) }
    }

    #[must_use]
    pub fn limit(&self) -> u32 {
        self.per_second.load(Ordering::Relaxed)
    }

    /// From here on. Who publishes under a limit that is new to them begins with a full allowance.
    pub fn set_limit(&self, per_second: u32) {
        self.per_second.store(per_second, Ordering::Relaxed);
    }

    /// A publisher's allowance. Who publishes again and again keeps it: then it is not looked for each time.
    pub fn of(&self, publisher: &Publisher) -> Arc<Allowance> {
        let mut allowances = lock(&self.allowances);
        if let Some(allowance) = allowances.by_publisher.get(publisher) {
            return Arc::clone(allowance);
        }
        let per_second = self.limit();
        if allowances.by_publisher.len() >= allowances.look_at {
            let is_used = |allowance: &Arc<Allowance>| {
                Arc::strong_count(allowance) > 1 || !lock(&allowance.0).is_full(per_second)
            };
            allowances.by_publisher.retain(|_, allowance| is_used(allowance));
            allowances.look_at = BUCKETS_KEPT.max(allowances.by_publisher.len() * 2);
        }
        let allowance = Arc::new(Allowance(Mutex::new(Rate::per_second(per_second))));
        allowances.by_publisher.insert(publisher.clone(), Arc::clone(&allowance));
        allowance
    }

    /// Takes one, or tells how long until there is one.
    pub fn take(&self, allowance: &Allowance) -> Result<(), Duration> {
        match self.limit() {
            0 => Ok(()),
            per_second => lock(&allowance.0).take(per_second),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A token bucket.
#[derive(Debug, Clone)]
struct Rate {
    per_second: u32,
    tokens: f64,
    filled: Instant,
}

impl Rate {
    fn per_second(per_second: u32) -> Self {
        let tokens = f64::from(per_second) * BURST.as_secs_f64();
        Self { per_second, tokens, filled: Instant::now() }
    }

    fn take(&mut self, per_second: u32) -> Result<(), Duration> {
        self.fill(per_second);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            Ok(())
        } else {
            Err(Duration::from_secs_f64((1.0 - self.tokens) / f64::from(self.per_second)))
        }
    }

    fn is_full(&mut self, per_second: u32) -> bool {
        self.fill(per_second);
        self.tokens >= self.most()
    }

    fn fill(&mut self, per_second: u32) {
        if self.per_second != per_second {
            *self = Self::per_second(per_second);
            return;
        }
        let now = Instant::now();
        let gained = (now - self.filled).as_secs_f64() * f64::from(self.per_second);
        self.tokens = (self.tokens + gained).min(self.most());
        self.filled = now;
    }

    fn most(&self) -> f64 {
        f64::from(self.per_second) * BURST.as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_and_then_the_steady_rate() {
        let mut rate = Rate::per_second(10);
        assert_eq!((0..100).filter(|_| rate.take(10).is_ok()).count(), 20);
        let wait = rate.take(10).unwrap_err();
        tokio::time::advance(wait).await;
        assert!(rate.take(10).is_ok());
        assert!(rate.take(10).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_publisher_has_one_allowance_and_no_limit_never_refuses() {
        let [ann, bob] = ["ann", "bob"].map(|name| Publisher::user(&name.parse().unwrap()));
        let rates = Rates::per_second(10);
        assert_eq!((0..100).filter(|_| rates.take(&rates.of(&ann)).is_ok()).count(), 20);
        assert!(rates.take(&rates.of(&bob)).is_ok());
        rates.set_limit(5);
        assert_eq!((0..100).filter(|_| rates.take(&rates.of(&ann)).is_ok()).count(), 10);
        rates.set_limit(0);
        assert!((0..1000).all(|_| rates.take(&rates.of(&ann)).is_ok()));
    }

    #[tokio::test(start_paused = true)]
    async fn publishers_that_were_quiet_are_forgotten() {
        let rates = Rates::per_second(10);
        let kept = rates.of(&Publisher::backend("kept"));
        for round in 0..5 {
            for n in 0..BUCKETS_KEPT {
                rates.take(&rates.of(&Publisher::backend(&format!("{round}-{n}")))).unwrap();
            }
            tokio::time::advance(BURST).await;
        }
        assert!(lock(&rates.allowances).by_publisher.len() <= 2 * BUCKETS_KEPT);
        assert!(Arc::ptr_eq(&kept, &rates.of(&Publisher::backend("kept"))), "somebody holds it");
    }
}
