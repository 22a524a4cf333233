//! Which apps have webhooks. Asked before every publish, so an installation without any pays one look at a flag.

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use tracing::warn;
use xpush_protocol::AppId;

use super::{HookEvent, Target, Webhook, before::Guard};

/// The webhooks of all apps, as this node knows them: up to a second old.
#[derive(Default)]
pub struct Table {
    any: AtomicBool,
    apps: RwLock<HashMap<AppId, Arc<[Arc<Hook>]>>>,
}

/// A webhook that is called.
pub(crate) struct Hook {
    pub(super) app: AppId,
    pub(super) webhook: Webhook,
    pub(super) target: Target,
    pub(super) guard: Guard,
}

impl Table {
    /// Whether any app has one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.any.load(Ordering::Relaxed)
    }

    /// Those of an app that want this.
    pub(crate) fn of(&self, app: &AppId, event: HookEvent) -> Vec<Arc<Hook>> {
        let Some(hooks) = self.app(app) else { return Vec::new() };
        hooks.iter().filter(|hook| hook.webhook.wants(event)).cloned().collect()
    }

    /// Whether the app has one that wants this.
    #[must_use]
    pub fn has(&self, app: &AppId, event: HookEvent) -> bool {
        self.app(app).is_some_and(|hooks| hooks.iter().any(|hook| hook.webhook.wants(event)))
    }

    pub(super) fn find(&self, app: &AppId, id: &str) -> Option<Arc<Hook>> {
        self.app(app)?.iter().find(|hook| hook.webhook.id == id).cloned()
    }

    fn app(&self, app: &AppId) -> Option<Arc<[Arc<Hook>]>> {
        if self.is_empty() {
            return None;
        }
        self.apps.read().unwrap_or_else(PoisonError::into_inner).get(app).cloned()
    }

    /// From here on these. One that stays as it is keeps what is known of how it answers.
    pub fn set(&self, apps: impl IntoIterator<Item = (AppId, Vec<Webhook>)>) {
        let mut table = HashMap::new();
        for (app, webhooks) in apps {
            let known = self.app(&app);
            let hooks = webhooks.into_iter().filter(|webhook| !webhook.disabled).filter_map(|webhook| {
                let same = |hook: &&Arc<Hook>| hook.webhook == webhook;
                if let Some(hook) = known.as_ref().and_then(|known| known.iter().find(same)) {
                    return Some(Arc::clone(hook));
                }
                match webhook.target() {
                    Ok(target) => {
                        let guard = Guard::default();
                        Some(Arc::new(Hook { app: app.clone(), webhook, target, guard }))
                    }
                    Err(error) => {
                        warn!(%app, hook = webhook.id, %error, "a webhook can't be called");
                        None
                    }
                }
            });
            let hooks: Arc<[_]> = hooks.collect();
            if !hooks.is_empty() {
                table.insert(app, hooks);
            }
        }
        let any = !table.is_empty();
        *self.apps.write().unwrap_or_else(PoisonError::into_inner) = table;
        self.any.store(any, Ordering::Relaxed);
    }
}
