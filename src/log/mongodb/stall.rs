//! Whether this process stood still for a while, as one that is stopped or starved does. Then what it knows of the
//! database is old, and what it finds to do was most likely given to another node since: its clients went there.

use std::time::Duration;

use tokio::time::Instant;

/// What looks after its work several times a second, and did not for so long, stood still.
const STALL: Duration = Duration::from_secs(2);

/// For so long after it, what comes may have come to other nodes before: it waited in the connections.
const AFTERMATH: Duration = Duration::from_secs(2);

pub(super) struct Stalls {
    looked: Instant,
    ended: Option<Instant>,
}

impl Stalls {
    pub(super) fn new() -> Self {
        Self { looked: Instant::now(), ended: None }
    }

    /// To be called several times a second. Gives whether the process stood still since the last time.
    pub(super) fn look(&mut self) -> bool {
        let now = Instant::now();
        let is_over = now.duration_since(std::mem::replace(&mut self.looked, now)) >= STALL;
        if is_over {
            self.ended = Some(now);
        }
        is_over
    }

    pub(super) fn ended_lately(&self) -> bool {
        self.ended.is_some_and(|ended| ended.elapsed() < AFTERMATH)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_does_not_look_for_a_while_stood_still() {
        let mut stalls = Stalls::new();
        advance(STALL / 2).await;
        assert!(!stalls.look() && !stalls.ended_lately());
        advance(STALL).await;
        assert!(stalls.look() && stalls.ended_lately());
        assert!(!stalls.look() && stalls.ended_lately(), "it is over, and not long ago");
        advance(AFTERMATH).await;
        assert!(!stalls.ended_lately());
    }
}
