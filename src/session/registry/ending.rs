//! What is taken from a user, found in the sessions that are here: each looks, or ends.

use std::sync::atomic::Ordering;

use xpush_protocol::{AppId, CloseCode, DeviceId, SessionId, UserId};
use xpush_transports::Farewell;

use super::{Sessions, Tables};
use crate::session::{Outbox, Recheck};

/// A connection, whichever table it is in.
struct Place<'a> {
    app: &'a AppId,
    user: Option<&'a UserId>,
    device: Option<&'a DeviceId>,
    session: &'a SessionId,
    since: u64,
    outbox: &'a Outbox,
}

impl Sessions {
    /// A right of the user may be gone: its connections look.
    pub(crate) fn recheck_user(&self, user: &UserId, recheck: &Recheck) {
        self.tables().of_user(user).for_each(|place| place.outbox.ask_recheck(recheck));
    }

    /// The rules of an app changed: the connections of its users look.
    pub(crate) fn recheck_app(&self, app: &AppId) {
        let tables = self.tables();
        let of_app = tables.all().filter(|place| place.app == app);
        of_app.for_each(|place| place.outbox.ask_recheck(&Recheck::Everything));
    }

    /// Any right may be gone: all look.
    pub(crate) fn recheck_all(&self) {
        self.tables().all().for_each(|place| place.outbox.ask_recheck(&Recheck::Everything));
    }

    /// A connection could not be told whether a right is gone; its outbox knows that it is this one.
    pub(crate) fn note_unsure(&self) {
        self.some_unsure.store(true, Ordering::Relaxed);
    }

    /// Those that could not be told ask again.
    pub(crate) fn recheck_unsure(&self) {
        if self.some_unsure.swap(false, Ordering::Relaxed) {
            self.tables().all().for_each(|place| place.outbox.ask_unsure());
        }
    }

    /// A session of the user began where there may be one: those that began before it end.
    pub(crate) fn end_others(&self, user: &UserId, device: Option<&DeviceId>, session: &SessionId, at: u64) {
        for place in self.tables().of_user(user) {
            let same_place = device.is_none() || place.device == device;
            if place.session != session && same_place && (place.since, place.session) < (at, session) {
                let reason = "the user signed in elsewhere, and the app allows one session at a time";
                place.outbox.close(Farewell::new(CloseCode::SignedInElsewhere, reason));
            }
        }
    }
}

impl Tables {
    fn all(&self) -> impl Iterator<Item = Place<'_>> {
        let present = self.present.iter().map(|(session, present)| Place {
            app: &present.app,
            user: present.user.as_ref(),
            device: present.device.as_ref(),
            session,
            since: present.since,
            outbox: &present.outbox,
        });
        present.chain(self.beside())
    }

    fn beside(&self) -> impl Iterator<Item = Place<'_>> {
        self.beside.values().map(|beside| Place {
            app: &beside.app,
            user: beside.user.as_ref(),
            device: beside.device.as_ref(),
            session: &beside.session,
            since: beside.since,
            outbox: &beside.outbox,
        })
    }

    fn of_user<'a>(&'a self, user: &'a UserId) -> impl Iterator<Item = Place<'a>> {
        let sessions = self.by_user.get(user).into_iter().flatten();
        let present = sessions.filter_map(|session| {
            let present = self.present.get(session)?;
            Some(Place {
                app: &present.app,
                user: present.user.as_ref(),
                device: present.device.as_ref(),
                session,
                since: present.since,
                outbox: &present.outbox,
            })
        });
        present.chain(self.beside().filter(move |place| place.user == Some(user)))
    }
}
