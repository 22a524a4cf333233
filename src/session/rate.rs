//! How fast one session may publish: a token bucket, refilled by the clock.

use std::time::Duration;

use tokio::time::Instant;

/// A bucket holds what may come at once: this long of the steady rate.
const BURST: Duration = Duration::from_secs(2);

/// A token bucket.
#[derive(Debug, Clone)]
pub(super) struct Rate {
    per_second: f64,
    tokens: f64,
    filled: Instant,
}

impl Rate {
    /// `0` is no limit.
    pub(super) fn per_second(rate: u32) -> Self {
        let per_second = f64::from(rate);
        Self { per_second, tokens: per_second * BURST.as_secs_f64(), filled: Instant::now() }
    }

    /// Takes one, or tells how long until there is one.
    pub(super) fn take(&mut self) -> Result<(), Duration> {
        if self.per_second == 0.0 {
            return Ok(());
        }
        let now = Instant::now();
        let gained = (now - self.filled).as_secs_f64() * self.per_second;
        self.tokens = (self.tokens + gained).min(self.per_second * BURST.as_secs_f64());
        self.filled = now;
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            Ok(())
        } else {
            Err(Duration::from_secs_f64((1.0 - self.tokens) / self.per_second))
        }
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

    #[test]
    fn no_limit_never_refuses() {
        let mut rate = Rate::per_second(0);
        assert!((0..1000).all(|_| rate.take().is_ok()));
    }
}
