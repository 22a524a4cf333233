//! From one connection to the next.

use std::time::Duration;

use rand::Rng as _;
use tokio::time::{Instant, sleep, timeout};
use xpush_protocol::{CloseCode, Connect, ErrorCode};
use xpush_transports::Closed;

use super::{
    super::{
        Ended, Event,
        attempt::{Dialled, Failure, dial},
        link::{Greeted, NotGreeted},
        pause,
    },
    Driver, Greeting, Halt, Live, Progress,
};

/// From the first question to a connection. What takes longer is begun anew, elsewhere.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(8);
/// From the connection to the answer to `connect`.
const GREET_LIMIT: Duration = Duration::from_secs(5);
/// The first reconnect is made within this, so that the clients of a node that died don't come all at once.
const JITTER: Duration = Duration::from_millis(50);
/// A connection that held so long is no failure; the next one is made at once.
const STEADY_AFTER: Duration = Duration::from_secs(5);
/// Failures that are remembered once a connection stands.
const UNSTEADY: u32 = 2;

impl Driver {
    /// Looks for a node after this pause, unless that is being done.
    pub(super) fn seek(&mut self, after: Duration) {
        if self.next.is_some() {
            return;
        }
        let Some(mut lookup) = self.lookup.take() else { return };
        let (avoid, via, dead_after) = (self.avoid.clone(), self.options.via, self.options.dead_after);
        self.next = Some(Box::pin(async move {
            sleep(after).await;
            let attempt = dial(&mut lookup, avoid.as_deref(), via, dead_after);
            let dialled = timeout(ATTEMPT_LIMIT, attempt).await.unwrap_or_else(|_| {
                let reason = format!("no node was found within {} s", ATTEMPT_LIMIT.as_secs());
                Err(Failure { reason, node: None, is_final: false })
            });
            Progress::Dialled(Box::new(lookup), dialled)
        }));
    }

    /// The next connection has come further.
    pub(super) fn go_on(&mut self, progress: Progress) -> Result<(), Ended> {
        self.next = None;
        match progress {
            Progress::Dialled(lookup, dialled) => {
                self.lookup = Some(*lookup);
                match dialled {
                    Ok(dialled) => self.greet(dialled),
                    Err(failure) if failure.is_final => return Err(Ended::Refused(failure.reason)),
                    Err(failure) => {
                        self.avoid = failure.node.or(self.avoid.take());
                        self.fail(failure.reason);
                    }
                }
                Ok(())
            }
            Progress::Greeted(greeted) => match (self.greeting.take(), greeted) {
                (Some(greeting), Ok(greeted)) => self.go_live(*greeted, greeting),
                (Some(greeting), Err(why)) => self.not_greeted(why, greeting),
                (None, _) => Ok(()),
            },
        }
    }

    fn greet(&mut self, Dialled { link, node, ticket }: Dialled) {
        let ticket = ticket.filter(|_| !self.distrusts_tickets);
        let token = if ticket.is_some() { None } else { self.options.token.clone() };
        let subscriptions = self.channels.vector();
        let asked = subscriptions.iter().map(|entry| entry.channel.clone()).collect();
        self.greeting = Some(Greeting { node, by_ticket: ticket.is_some(), asked });
        let (state, agent) = (self.state.clone(), self.options.agent.clone());
        let connect = Connect { id: 0, token, ticket, state, subscriptions, detached: false, agent };
        self.next = Some(Box::pin(async move {
            let greeted = timeout(GREET_LIMIT, link.greet(connect)).await.unwrap_or_else(|_| {
                Err(NotGreeted::Closed(Closed::Lost("`connect` is not answered".into())))
            });
            Progress::Greeted(greeted.map(Box::new))
        }));
    }

    /// The new connection takes over.
    fn go_live(&mut self, greeted: Greeted, greeting: Greeting) -> Result<(), Ended> {
        let Greeted { link, connected, early } = greeted;
        if let Some(mut old) = self.live.take() {
            // What came over it counts, and is not there twice: the new one's channels go on behind it.
            for frame in old.link.rest() {
                match self.hear(frame) {
                    Ok(()) => {}
                    Err(Halt::Broken(_)) => break,
                    Err(Halt::Ended(why)) => return Err(why),
                }
            }
            self.leaving.push(Box::pin(old.link.close()));
        }
        self.begin();
        self.move_at = None;
        self.avoid = None;
        self.failures = self.failures.min(UNSTEADY);
        self.state = Some(connected.state);
        // Behind the id of `connect`.
        self.next_id = 2;
        self.tell(Event::Connected { node: connected.node.clone(), via: link.via });
        self.live = Some(Live { link, node: connected.node, since: Instant::now() });
        let new: Vec<_> =
            self.channels.names().filter(|name| !greeting.asked.contains(*name)).cloned().collect();
        new.into_iter().for_each(|name| self.ask_for(name));
        for name in greeting.asked {
            if !self.channels.contains(&name) {
                self.give_up(name);
            }
        }
        for frame in early {
            if !self.hear_or_lose(frame)? {
                break;
            }
        }
        Ok(())
    }

    fn not_greeted(&mut self, why: NotGreeted, greeting: Greeting) -> Result<(), Ended> {
        match why {
            NotGreeted::Refused(error) if error.code == ErrorCode::InvalidState && self.state.is_some() => {
                self.state = None;
                self.seek(Duration::ZERO);
            }
            NotGreeted::Refused(error) if error.code == ErrorCode::InvalidToken && greeting.by_ticket => {
                self.distrusts_tickets = true;
                self.seek(Duration::ZERO);
            }
            NotGreeted::Refused(error) if error.retry => self.fail(error.message),
            NotGreeted::Refused(error) => {
                return Err(Ended::Refused(format!("{}: {}", error.code, error.message)));
            }
            NotGreeted::Closed(closed) => {
                refuse_final(&closed)?;
                self.avoid = Some(greeting.node);
                self.fail(closed.to_string());
            }
        }
        Ok(())
    }

    /// The connection ended.
    pub(super) fn closed(&mut self, closed: &Closed) -> Result<(), Ended> {
        refuse_final(closed)?;
        let is_replaced = matches!(closed, Closed::ByPeer { code: CloseCode::Replaced, .. });
        if is_replaced && self.greeting.is_some() {
            // By the one that is being made beside it.
            self.let_go();
            return Ok(());
        }
        self.avoid = self.live.as_ref().map(|live| live.node.clone());
        self.lose(closed.to_string());
        Ok(())
    }

    /// There is no connection any more that is of use.
    pub(super) fn lose(&mut self, reason: String) {
        let Some(since) = self.live.as_ref().map(|live| live.since) else { return };
        self.let_go();
        self.tell(Event::Disconnected { reason });
        if since.elapsed() >= STEADY_AFTER {
            self.failures = 0;
        }
        let after = if self.failures == 0 {
            rand::rng().random_range(Duration::ZERO..JITTER)
        } else {
            pause(self.failures)
        };
        self.failures += 1;
        self.seek(after);
    }

    /// No new connection came of it; the old one, if there is one, goes on.
    fn fail(&mut self, reason: String) {
        if self.live.is_none() {
            self.tell(Event::Disconnected { reason });
        }
        self.failures += 1;
        self.seek(pause(self.failures));
    }

    pub(super) fn let_go(&mut self) {
        if let Some(live) = self.live.take() {
            self.leaving.push(Box::pin(live.link.close()));
        }
        self.move_at = None;
        self.begin();
    }

    /// Nothing was said on the connection that follows.
    fn begin(&mut self) {
        self.channels.begin();
        self.publishes.begin();
        self.outgoing.clear();
        self.subscribing.clear();
    }
}

fn refuse_final(closed: &Closed) -> Result<(), Ended> {
    match closed {
        Closed::ByPeer { code, .. } if !code.may_reconnect() => Err(Ended::Refused(closed.to_string())),
        _ => Ok(()),
    }
}
