//! What keeps webhooks going while a node lives: it reads which there are, finds what is to be told, and tells it.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use serde::Deserialize;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use xpush_protocol::{AppId, ChannelName, Cursor};

use super::{
    HookEvent, Webhook, Webhooks,
    line::{Line, Since, State, since_key},
    mark::{KEPT, Mark},
};
use crate::{
    directory::{
        Directory, Record, Result, Tagged,
        record::{decode, encode},
        store::{Commit, CommitError, Key, Prefix, SCAN_LIMIT, Scan},
    },
    log::Log,
};

/// However well changes are heard of, the apps are read again after this time.
const RELOAD_INTERVAL: Duration = Duration::from_secs(30);
/// After a failure.
const RELOAD_PAUSE: Duration = Duration::from_secs(1);
/// How soon something that happened is told.
const ENTRIES_INTERVAL: Duration = Duration::from_millis(500);
/// Subjects that one look finds; the next one goes on behind them.
const SUBJECTS_PER_LOOK: usize = 1_000;
/// How soon a node finds the messages of one that died, beside the lease that it left.
const MARKS_INTERVAL: Duration = Duration::from_secs(20);
/// Channels whose tops are asked at once.
const MARKS_PAGE: usize = 200;
/// What is under way when a node stops may end.
const STOP_DEADLINE: Duration = Duration::from_secs(2);
/// A webhook that is gone for as long is: another node may know one already that this one does not.
const SINCE_KEPT: u64 = 60_000;

/// Of an app's record, what is needed here.
#[derive(Deserialize)]
struct AppRecord {
    #[serde(default)]
    policy: PolicyRecord,
    #[serde(default)]
    leaving: bool,
}

#[derive(Default, Deserialize)]
struct PolicyRecord {
    #[serde(default)]
    webhooks: Vec<Webhook>,
}

impl Webhooks {
    /// An app's policy may have changed.
    pub(crate) fn policies_changed(&self) {
        self.changed.notify_one();
    }

    /// Reads which webhooks there are. Before a node serves anybody, or somebody would come in unasked.
    pub async fn load(&self, directory: &Directory) -> Result<()> {
        let mut apps = Vec::new();
        let mut after = None;
        loop {
            let scan = Scan { after, ..Scan::of(Prefix::new(&["app"])) };
            let page = directory.store.scan(scan).await?;
            for (key, entry) in &page {
                // An app that can't be read has worse to tell than that its webhooks are not called.
                let Ok(record) = serde_json::from_slice::<AppRecord>(&entry.value) else {
                    warn!(?key, "an app can't be read; its webhooks are not called");
                    continue;
                };
                if let (Ok(app), false) = (key.component(1).parse::<AppId>(), record.leaving) {
                    apps.push((app, record.policy.webhooks));
                }
            }
            after = page.last().map(|(key, _)| key.clone());
            if page.len() < SCAN_LIMIT {
                break;
            }
        }
        self.note_since(directory, &apps).await?;
        self.table.set(apps);
        Ok(())
    }

    /// Notes when each was first seen, and forgets those that are gone.
    async fn note_since(&self, directory: &Directory, apps: &[(AppId, Vec<Webhook>)]) -> Result<()> {
        let active: HashSet<Key> = apps
            .iter()
            .flat_map(|(app, webhooks)| {
                let active = webhooks.iter().filter(|webhook| !webhook.disabled);
                active.map(move |webhook| since_key(app, &webhook.id))
            })
            .collect();
        let known = all::<Since>(directory, Prefix::new(&["hook-since"])).await?;
        for key in active.iter().filter(|key| !known.contains_key(*key)) {
            let since = Since { since: self.now() };
            // Another node may be quicker.
            commit(directory, Commit::new().expect(key.clone(), None).put(key.clone(), encode(&since)))
                .await?;
        }
        let is_gone = |(key, since): &(&Key, &Tagged<Since>)| {
            !active.contains(*key) && since.value.since + SINCE_KEPT < self.now()
        };
        for (key, since) in known.iter().filter(is_gone) {
            let forget = Commit::new().expect(key.clone(), Some(since.version)).delete(key.clone());
            commit(directory, forget).await?;
        }
        Ok(())
    }

    /// Does it all until cancelled, and leaves what is under way to others.
    pub async fn run(&self, directory: &Directory, log: &Arc<dyn Log>, cancel: &CancellationToken) {
        let looking = async {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = async {
                    // A mark that no webhook minds is forgotten: so it has to be known which there are.
                    self.load_first(directory).await;
                    tokio::join!(self.follow(directory), self.look_for_entries(directory), self.look_for_marks(directory, log));
                } => {}
            }
        };
        tokio::join!(looking, self.tell_lines(directory, log, cancel));
    }

    async fn tell_lines(&self, directory: &Directory, log: &Arc<dyn Log>, cancel: &CancellationToken) {
        let mut telling = FuturesUnordered::new();
        loop {
            tokio::select! {
                () = cancel.cancelled() => break,
                // There are so many at once and no more.
                line = self.due.next() => telling.push(
                    async move {
                        let after = self.tell(directory, &**log, &line, cancel).await;
                        self.due.done(line, after);
                    }
                    .boxed(),
                ),
                Some(()) = telling.next() => {}
            }
        }
        let _ = timeout(STOP_DEADLINE, async { while telling.next().await.is_some() {} }).await;
    }

    async fn load_first(&self, directory: &Directory) {
        while let Err(error) = self.load(directory).await {
            warn!(%error, "the apps' webhooks can't be read yet; none is called");
            sleep(RELOAD_PAUSE).await;
        }
    }

    async fn follow(&self, directory: &Directory) {
        let mut lost = false;
        loop {
            if !lost {
                let _ = timeout(RELOAD_INTERVAL, self.changed.notified()).await;
            }
            match self.load(directory).await {
                Ok(()) => {
                    if std::mem::take(&mut lost) {
                        info!("the apps' webhooks can be read again");
                    }
                }
                Err(error) => {
                    if !std::mem::replace(&mut lost, true) {
                        warn!(%error, "the apps' webhooks can't be read; those that were known are called");
                    }
                    sleep(RELOAD_PAUSE).await;
                }
            }
        }
    }

    async fn look_for_entries(&self, directory: &Directory) {
        let mut ticks = interval(ENTRIES_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut after = None;
        loop {
            ticks.tick().await;
            // A store that can't be read is asked again; the node's health tells of it.
            if !self.table.is_empty() && self.find_entries(directory, &mut after).await.is_err() {
                after = None;
            }
        }
    }

    /// Finds the subjects that have entries: one read for each, not for each entry.
    async fn find_entries(&self, directory: &Directory, after: &mut Option<Key>) -> Result<()> {
        for _ in 0..SUBJECTS_PER_LOOK {
            let scan = Scan { after: after.clone(), limit: 1, ..Scan::of(Prefix::new(&["hook"])) };
            let Some((key, _)) = directory.store.scan(scan).await?.pop() else {
                *after = None;
                return Ok(());
            };
            let [app, hook, subject] = [1, 2, 3].map(|at| key.component(at));
            if let Some(hook) = app.parse().ok().and_then(|app| self.table.find(&app, hook)) {
                self.due.add(Line::of_events(&hook.app, &hook.webhook.id, subject));
            }
            // Behind all sequences, which begin with digits.
            *after = Some(Key::new(&["hook", app, hook, subject, "~"]));
        }
        Ok(())
    }

    async fn look_for_marks(&self, directory: &Directory, log: &Arc<dyn Log>) {
        let mut ticks = interval(MARKS_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(error) = self.find_marks(directory, &**log).await {
                warn!(%error, "the channels that webhooks follow can't be looked at");
            }
        }
    }

    /// Finds the channels whose messages were not all told, and forgets those that are quiet.
    pub(super) async fn find_marks(&self, directory: &Directory, log: &dyn Log) -> Result<()> {
        let mut after = None;
        loop {
            let page = directory.list::<Mark>(Prefix::new(&["hook-mark"]), after, MARKS_PAGE).await?;
            after = page.last().map(|(key, _)| key.clone());
            let is_last = page.len() < MARKS_PAGE;
            let of = |(key, mark): (Key, Tagged<Mark>)| {
                let app = key.component(1).parse::<AppId>().ok()?;
                let channel = key.component(2).parse::<ChannelName>().ok()?.within(&app);
                Some((channel, key, mark))
            };
            let marks: Vec<_> = page.into_iter().filter_map(of).collect();
            let channels: Vec<_> = marks.iter().map(|(channel, ..)| channel.clone()).collect();
            // A log that can't say is asked again with the next look.
            let Ok(tops) = log.tops(&channels).await else { return Ok(()) };
            for ((channel, key, mark), top) in marks.into_iter().zip(tops) {
                self.look_at(directory, &channel, key, mark, top).await?;
            }
            if is_last {
                return Ok(());
            }
        }
    }

    async fn look_at(
        &self,
        directory: &Directory,
        channel: &ChannelName,
        key: Key,
        mark: Tagged<Mark>,
        top: Cursor,
    ) -> Result<()> {
        let hooks = self.table.of(&channel.app(), HookEvent::MessagePublished);
        let lines: Vec<_> = hooks.iter().map(|hook| Line::of_messages(hook, channel)).collect();
        let keys: Vec<_> = lines.iter().map(Line::key).collect();
        let states = directory.read_many::<State>(&keys).await?;
        let is_quiet = mark.value.marked + (KEPT.as_millis() as u64) < self.now();
        let mut forget = Commit::new().soon().expect(key.clone(), Some(mark.version)).delete(key);
        let mut is_over = is_quiet;
        for ((line, key), state) in lines.into_iter().zip(keys).zip(states) {
            let cursor = state.as_ref().and_then(|state| state.value.cursor).unwrap_or(mark.value.from);
            if cursor != top {
                self.due.add(line);
                is_over = false;
            }
            is_over &= state.as_ref().is_none_or(|state| state.value.holder.is_none());
            if let Some(state) = state {
                forget = forget.expect(key.clone(), Some(state.version)).delete(key);
            }
        }
        if is_over {
            commit(directory, forget).await?;
        }
        Ok(())
    }
}

/// Where somebody else was quicker there is nothing to do.
async fn commit(directory: &Directory, commit: Commit) -> Result<()> {
    match directory.store.commit(commit).await {
        Ok(()) | Err(CommitError::Conflict) => Ok(()),
        Err(CommitError::Store(error)) => Err(error.into()),
    }
}

async fn all<T: Record>(directory: &Directory, prefix: Prefix) -> Result<HashMap<Key, Tagged<T>>> {
    let mut found = HashMap::new();
    let mut after = None;
    loop {
        let page = directory.store.scan(Scan { after, ..Scan::of(prefix.clone()) }).await?;
        after = page.last().map(|(key, _)| key.clone());
        let is_last = page.len() < SCAN_LIMIT;
        for (key, entry) in page {
            let tagged = decode(&key, &entry)?;
            found.insert(key, tagged);
        }
        if is_last {
            return Ok(found);
        }
    }
}
