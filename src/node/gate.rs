//! What somebody may do in a channel that no token grants: what the directory says of its members, kept here while it
//! holds.
//!
//! A standing that was read is used until a change says that it may be another, for at most `STANDING_LIFE`, and only
//! while the changes are heard of: once they are not, every right is read anew. So a publish of a member costs no way
//! to the store, and a right that is taken away is gone within `FOLLOW_INTERVAL` and one read.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{info, warn};
use xpush_protocol::{ChannelName, ErrorCode, UserId};

use super::{Node, inbox::inbox_of};
use crate::{
    auth::{Permission, Rights},
    directory::{AppPolicy, Change, ChangeFeed, Standing},
    namespace::{Access, INBOX, Policy},
    session::{Recheck, Refusal},
};

/// How often the changes are looked at.
pub(crate) const FOLLOW_INTERVAL: Duration = Duration::from_millis(150);
/// Changes that were not heard of for as long are not heard of at all: some looks that took long, not one.
const FOLLOW_PATIENCE: Duration = Duration::from_millis(700);
/// However well the changes are heard of: a mute ends by the clock, and what nobody asks for need not be kept.
const STANDING_LIFE: Duration = Duration::from_secs(30);
/// Standings kept. Beyond it all are forgotten, and those that are in use are read again.
const STANDINGS_KEPT: usize = 100_000;

/// What is known of who may do what.
#[derive(Default)]
pub(super) struct Gate(Mutex<Known>);

#[derive(Default)]
struct Known {
    standings: HashMap<(ChannelName, Option<UserId>), (Standing, Instant)>,
    /// Changes that were followed. What was read before one of them is not kept after it.
    changes: u64,
    /// When the changes were looked at last.
    followed: Option<Instant>,
}

impl Gate {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known, if it may still be used.
    fn get(&self, channel: &ChannelName, user: Option<&UserId>) -> Option<Standing> {
        let known = self.known();
        if known.followed.is_none_or(|at| at.elapsed() >= FOLLOW_PATIENCE) {
            return None;
        }
        let (standing, read) = known.standings.get(&(channel.clone(), user.cloned()))?;
        (read.elapsed() < STANDING_LIFE).then_some(*standing)
    }

    /// Changes so far: to be asked before a read whose outcome is to be kept.
    pub(super) fn changes(&self) -> u64 {
        self.known().changes
    }

    /// What was found of anybody before this is to be looked at again.
    pub(super) fn note_change(&self) {
        self.known().changes += 1;
    }

    fn keep(&self, channel: &ChannelName, user: Option<&UserId>, standing: Standing, changes: u64) {
        let mut known = self.known();
        if known.changes != changes {
            return;
        }
        if known.standings.len() >= STANDINGS_KEPT {
            known.standings.clear();
        }
        known.standings.insert((channel.clone(), user.cloned()), (standing, Instant::now()));
    }

    /// Anything may have changed.
    fn forget(&self) {
        let mut known = self.known();
        known.followed = Some(Instant::now());
        known.changes += 1;
        known.standings.clear();
    }

    /// Notes that the changes up to now are these.
    fn follow(&self, changes: &[Change]) {
        let mut known = self.known();
        known.followed = Some(Instant::now());
        known.changes += changes.len() as u64;
        for change in changes {
            match change {
                Change::Member { app, channel, user } => {
                    let of = (channel.within(app), Some(user.within(app)));
                    known.standings.remove(&of);
                }
                Change::Channel { app, channel } => {
                    let channel = channel.within(app);
                    known.standings.retain(|(of, _), _| *of != channel);
                }
                Change::User { app, user } => {
                    let user = user.within(app);
                    known.standings.retain(|(_, of), _| of.as_ref() != Some(&user));
                }
                Change::App { app } => known.standings.retain(|(of, _), _| !of.is_of(app)),
                // What a login may is what its user may.
                Change::Device { .. } | Change::Login { .. } | Change::Entered { .. } => {}
            }
        }
    }
}

impl Node {
    /// Whether somebody may do it, if that can be said without asking the directory.
    pub(crate) fn decided(
        &self,
        rights: &Rights,
        permission: Permission,
        channel: &ChannelName,
    ) -> Option<Result<(), Refusal>> {
        if channel.namespace() == INBOX {
            return Some(self.decided_of_inbox(rights, permission, channel));
        }
        if rights.allows(permission, channel) {
            return Some(Ok(()));
        }
        if !channel.is_of(rights.app()) {
            return Some(Err(refused(permission, channel)));
        }
        // Which namespaces there are is no secret, and the better answer.
        let configured = match self.policy(channel) {
            Ok(policy) => policy,
            Err(refusal) => return Some(Err(refusal)),
        };
        match rules_of(configured, channel, &*self.directory.known_policy(rights.app())?).access {
            Access::Token | Access::Inbox => Some(Err(refused(permission, channel))),
            access @ (Access::Members | Access::Public | Access::Anonymous) => {
                let standing = self.gate.get(channel, rights.user())?;
                Some(judged(standing, permission, access, channel))
            }
        }
    }

    /// An inbox is read by its user, and by who may do everything in its app; only the server writes there. No grant says
    /// otherwise: tokens that grant all channels were made before there were inboxes.
    fn decided_of_inbox(
        &self,
        rights: &Rights,
        permission: Permission,
        channel: &ChannelName,
    ) -> Result<(), Refusal> {
        let is_own = rights.user().is_some_and(|user| inbox_of(user) == *channel);
        let may_all = rights.is_everything() && channel.is_of(rights.app());
        let reads = permission != Permission::Publish && permission != Permission::Send;
        if reads && (is_own || may_all) { Ok(()) } else { Err(refused(permission, channel)) }
    }

    /// Whether somebody may do it: by its token, or by what the directory says.
    pub(crate) async fn require(
        &self,
        rights: &Rights,
        permission: Permission,
        channel: &ChannelName,
    ) -> Result<(), Refusal> {
        if let Some(decided) = self.decided(rights, permission, channel) {
            return decided;
        }
        let access = self.rules(channel).await?.access;
        // The app's policy is known now, and may say all.
        if let Some(decided) = self.decided(rights, permission, channel) {
            return decided;
        }
        let (user, changes) = (rights.user(), self.gate.changes());
        let standing = self.directory.standing(channel, user).await?;
        judged(standing, permission, access, channel)?;
        // Only what lets somebody do something is kept: who was refused may be let in at any moment.
        self.gate.keep(channel, user, standing, changes);
        Ok(())
    }

    /// What holds for a channel: as the configuration says, where its app says nothing else.
    pub(crate) async fn rules(&self, channel: &ChannelName) -> Result<Policy, Refusal> {
        let configured = self.policy(channel)?;
        let of_app = self.directory.policy(&channel.app()).await?;
        Ok(rules_of(configured, channel, &of_app))
    }

    /// Follows what is taken away from anybody, and has the sessions that it concerns look again.
    pub(super) async fn follow_changes(&self) {
        let mut feed = ChangeFeed::default();
        let mut ticks = interval(FOLLOW_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut lost = false;
        loop {
            ticks.tick().await;
            match feed.next(&self.directory).await {
                Ok(changes) => {
                    if std::mem::take(&mut lost) {
                        info!("the directory's changes can be read again");
                    }
                    self.gate.follow(&changes);
                    changes.iter().for_each(|change| self.tell_change(change));
                    self.recheck_unchecked();
                    self.sessions.recheck_unsure();
                    if feed.take_missed() {
                        self.gate.forget();
                        self.sessions.recheck_all();
                    }
                }
                Err(error) if !lost => {
                    warn!(%error, "the directory's changes can't be read; rights that are taken away meanwhile end once they can");
                    lost = true;
                }
                Err(_) => {}
            }
        }
    }

    fn tell_change(&self, change: &Change) {
        match change {
            Change::User { app, user }
            | Change::Login { app, user, .. }
            | Change::Device { app, user, .. } => {
                self.sessions.recheck_user(&user.within(app), &Recheck::Account);
            }
            Change::Member { app, channel, user } => {
                self.sessions.recheck_user(&user.within(app), &Recheck::Channel(channel.within(app)));
            }
            Change::Channel { app, channel } => {
                let channel = channel.within(app);
                if let Some(channel) = self.channels.get(&channel) {
                    channel.recheck();
                }
            }
            Change::App { app } => {
                self.webhooks.policies_changed();
                self.sessions.recheck_app(app);
            }
            Change::Entered { app, user, device, session, at } => {
                self.sessions.end_others(&user.within(app), device.as_ref(), session, *at);
            }
        }
    }
}

/// What an app may say otherwise of a namespace. Inboxes are the server's.
pub(super) fn rules_of(configured: &Policy, channel: &ChannelName, of_app: &AppPolicy) -> Policy {
    let said = of_app.namespaces.get(channel.namespace()).filter(|_| configured.access != Access::Inbox);
    Policy {
        access: said.and_then(|said| said.access).unwrap_or(configured.access),
        receipts: said.and_then(|said| said.receipts).unwrap_or(configured.receipts),
        ..*configured
    }
}

fn judged(
    standing: Standing,
    permission: Permission,
    access: Access,
    channel: &ChannelName,
) -> Result<(), Refusal> {
    if standing.may(permission, access, SystemTime::now()) {
        Ok(())
    } else {
        Err(refused(permission, channel))
    }
}

fn refused(permission: Permission, channel: &ChannelName) -> Refusal {
    let message = format!("neither the token nor the channel's members grant `{permission}` on {channel}");
    Refusal::new(ErrorCode::PermissionDenied, message)
}
