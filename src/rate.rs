//! How fast one publisher may publish: a token bucket each, refilled by the clock. It is the publisher's, not the
//! connection's, or a new connection would be a new allowance.

use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::publication::Publisher;

/// A bucket holds what may come at once: this long of the steady rate.
const BURST: Duration = Duration::from_secs(2);

/// Buckets beyond which those that are full again are forgotten.
const BUCKETS_KEPT: usize = 10_000;

/// The allowances of all publishers of a node.
pub struct Rates {
    per_second: AtomicU32,
    buckets: Mutex<Buckets>,
}

struct Buckets {
    by_publisher: HashMap<Publisher, Rate>,
    /// Looked through when it has grown to this: twice what was left the last time.
    look_at: usize,
}

impl Rates {
    /// `0` is no limit.
    #[must_use]
    pub fn per_second(per_second: u32) -> Self {
        let buckets = Buckets { by_publisher: HashMap::new(), look_at: BUCKETS_KEPT };
        Self { per_second: AtomicU32::new(per_second), buckets: Mutex::new(buckets) }
    }

    #[must_use]
    pub fn limit(&self) -> u32 {
        self.per_second.load(Ordering::Relaxed)
    }

    /// From here on; everybody begins with a full allowance.
    pub fn set_limit(&self, per_second: u32) {
        if self.per_second.swap(per_second, Ordering::Relaxed) != per_second {
            self.buckets.lock().unwrap_or_else(PoisonError::into_inner).by_publisher.clear();
        }
    }

    /// Takes one, or tells how long until there is one.
    pub fn take(&self, publisher: &Publisher) -> Result<(), Duration> {
        let per_second = self.limit();
        if per_second == 0 {
            return Ok(());
        }
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(rate) = buckets.by_publisher.get_mut(publisher) {
            return rate.take();
        }
        if buckets.by_publisher.len() >= buckets.look_at {
            buckets.by_publisher.retain(|_, rate| !rate.is_full());
            buckets.look_at = BUCKETS_KEPT.max(buckets.by_publisher.len() * 2);
        }
        let mut rate = Rate::per_second(per_second);
        let taken = rate.take();
        buckets.by_publisher.insert(publisher.clone(), rate);
        taken
    }
}

/// A token bucket.
#[derive(Debug, Clone)]
struct Rate {
    per_second: f64,
    tokens: f64,
    filled: Instant,
}

impl Rate {
    fn per_second(rate: u32) -> Self {
        let per_second = f64::from(rate);
        Self { per_second, tokens: per_second * BURST.as_secs_f64(), filled: Instant::now() }
    }

    fn take(&mut self) -> Result<(), Duration> {
        self.fill();
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            Ok(())
        } else {
            Err(Duration::from_secs_f64((1.0 - self.tokens) / self.per_second))
        }
    }

    fn is_full(&mut self) -> bool {
        self.fill();
        self.tokens >= self.most()
    }

    fn fill(&mut self) {
        let now = Instant::now();
        let gained = (now - self.filled).as_secs_f64() * self.per_second;
        self.tokens = (self.tokens + gained).min(self.most());
        self.filled = now;
    }

    fn most(&self) -> f64 {
        self.per_second * BURST.as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_and_then_the_steady_rate() {
        let mut rate = Rate::per_second(10);
        assert_eq!((0..100).filter(|_| rate.take().is_ok()).count(), 20);
        let wait = rate.take().unwrap_err();
        tokio::time::advance(wait).await;
        assert!(rate.take().is_ok());
        assert!(rate.take().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_publisher_has_one_allowance_and_no_limit_never_refuses() {
        let [ann, bob] = ["ann", "bob"].map(|name| Publisher::user(&name.parse().unwrap()));
        let rates = Rates::per_second(10);
        assert_eq!((0..100).filter(|_| rates.take(&ann).is_ok()).count(), 20);
        assert!(rates.take(&bob).is_ok());
        let free = Rates::per_second(0);
        assert!((0..1000).all(|_| free.take(&ann).is_ok()));
    }

    #[tokio::test(start_paused = true)]
    async fn publishers_that_were_quiet_are_forgotten() {
        let rates = Rates::per_second(10);
        for round in 0..5 {
            for n in 0..BUCKETS_KEPT {
                rates.take(&Publisher::backend(&format!("{round}-{n}"))).unwrap();
            }
            tokio::time::advance(BURST).await;
        }
        assert!(rates.buckets.lock().unwrap().by_publisher.len() <= 2 * BUCKETS_KEPT);
    }
}
