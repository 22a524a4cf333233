//! What a client may do, once a token, an API key or the loopback address has said who it is. Past this type
//! nobody looks at a token again.

use std::{
    collections::BTreeMap,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use xpush_protocol::{AppId, ChannelName, DeviceId, Target, UserDevice, UserId};

use super::pattern::{Pattern, PatternError};

/// Grants of one token or API key. Each publish may have to try all of them, so there are not many.
pub const MAX_GRANTS: usize = 128;

/// The rights of one client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rights {
    app: AppId,
    user: Option<UserId>,
    account: Option<Arc<Account>>,
    /// Seconds since 1970, as tokens count.
    expires: Option<u64>,
    grants: Arc<[Grant]>,
}

/// Which login of a user of the directory a token is of: what can be taken back before the token ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The login's id. `None`: the application made the token.
    pub login: Option<String>,
    pub device: Option<DeviceId>,
    /// When the token was made, in seconds since 1970.
    pub issued: Option<u64>,
}

/// What may be done in the channels of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    pattern: Pattern,
    permissions: Permissions,
}

/// One thing that a client may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Permission {
    Subscribe,
    Publish,
    History,
    Presence,
    /// Private messages. The pattern is one of addresses then: `user:ann`, `session:*`.
    Send,
}

/// Some of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "Vec<Permission>", into = "Vec<Permission>")]
pub struct Permissions(u8);

/// Grants as tokens and configuration write them: `{"room:*": ["subscribe", "publish"]}`.
pub type GrantsByPattern = BTreeMap<String, Permissions>;

/// Why grants are none.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum GrantError {
    #[error("there are {0} grants, {MAX_GRANTS} at most are allowed")]
    TooMany(usize),
    #[error(transparent)]
    Pattern(#[from] PatternError),
}

impl Rights {
    pub fn new(
        user: Option<UserId>,
        expires: Option<u64>,
        grants: &GrantsByPattern,
    ) -> Result<Self, GrantError> {
        if grants.len() > MAX_GRANTS {
            return Err(GrantError::TooMany(grants.len()));
        }
        let grants = grants
            .iter()
            .map(|(pattern, permissions)| {
                Ok(Grant { pattern: Pattern::parse(pattern, user.as_ref())?, permissions: *permissions })
            })
            .collect::<Result<_, GrantError>>()?;
        Ok(Self { app: AppId::default(), user, account: None, expires, grants })
    }

    /// The same in another app. The user is that app's own.
    #[must_use]
    pub fn within(self, app: AppId) -> Self {
        let user = self.user.map(|user| user.within(&app));
        Self { app, user, ..self }
    }

    #[must_use]
    pub fn of_account(self, account: Account) -> Self {
        Self { account: Some(Arc::new(account)), ..self }
    }

    /// Whose names these rights are about.
    #[must_use]
    pub fn app(&self) -> &AppId {
        &self.app
    }

    #[must_use]
    pub fn account(&self) -> Option<&Account> {
        self.account.as_deref()
    }

    /// All permissions on all channels, for nobody in particular and without an end.
    #[must_use]
    pub fn everything() -> Self {
        let grant = Grant { pattern: Pattern::everything(), permissions: Permissions::ALL };
        Self { app: AppId::default(), user: None, account: None, expires: None, grants: [grant].into() }
    }

    /// Nothing but what everybody may.
    #[must_use]
    pub fn nobody() -> Self {
        Self { app: AppId::default(), user: None, account: None, expires: None, grants: [].into() }
    }

    /// Everything in this app, and nothing in another.
    #[must_use]
    pub fn everything_in(app: AppId) -> Self {
        Self::everything().within(app)
    }

    /// Whether nothing of its app is withheld.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.user.is_none() && self.grants == Self::everything().grants
    }

    /// Whom the token is for. `None`: anonymous, or a backend.
    #[must_use]
    pub fn user(&self) -> Option<&UserId> {
        self.user.as_ref()
    }

    /// When they end. `None`: they don't.
    #[must_use]
    pub fn expires(&self) -> Option<SystemTime> {
        // A time beyond the clock's range never comes.
        self.expires.and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)))
    }

    /// Whether `permission` is granted for a channel. `Permission::Send` is asked for with `may_send`.
    #[must_use]
    pub fn allows(&self, permission: Permission, channel: &ChannelName) -> bool {
        channel.is_of(&self.app) && self.grants_for(permission, channel.local())
    }

    /// Whether a private message may go there.
    #[must_use]
    pub fn may_send(&self, target: &Target) -> bool {
        let address = match target {
            // Whether it is one of this app is known where it is connected.
            Target::Session(session) => format!("session:{session}"),
            // Who may write to a user may write to each device of it.
            Target::User(user) | Target::Device(UserDevice { user, .. }) => {
                if !user.is_of(&self.app) {
                    return false;
                }
                format!("user:{user}")
            }
        };
        self.grants_for(Permission::Send, &address)
    }

    fn grants_for(&self, permission: Permission, name: &str) -> bool {
        self.grants.iter().any(|grant| grant.permissions.contain(permission) && grant.pattern.matches(name))
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Subscribe => "subscribe",
            Self::Publish => "publish",
            Self::History => "history",
            Self::Presence => "presence",
            Self::Send => "send",
        })
    }
}

impl Permission {
    pub const ALL: [Self; 5] = [Self::Subscribe, Self::Publish, Self::History, Self::Presence, Self::Send];

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl Permissions {
    pub const ALL: Self = Self((1 << Permission::ALL.len()) - 1);

    #[must_use]
    pub fn contain(self, permission: Permission) -> bool {
        self.0 & permission.bit() != 0
    }
}

impl FromIterator<Permission> for Permissions {
    fn from_iter<I: IntoIterator<Item = Permission>>(permissions: I) -> Self {
        Self(permissions.into_iter().fold(0, |bits, permission| bits | permission.bit()))
    }
}

impl From<Vec<Permission>> for Permissions {
    fn from(permissions: Vec<Permission>) -> Self {
        permissions.into_iter().collect()
    }
}

impl From<Permissions> for Vec<Permission> {
    fn from(permissions: Permissions) -> Self {
        Permission::ALL.into_iter().filter(|permission| permissions.contain(*permission)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants(json: &str) -> GrantsByPattern {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_right_is_for_the_channels_of_its_pattern_only() {
        let grants = grants(r#"{"room:*": ["subscribe", "history"], "room:a": ["publish"]}"#);
        let rights = Rights::new(None, None, &grants).unwrap();
        let (a, b, live) = ("room:a".parse().unwrap(), "room:b".parse().unwrap(), "live:a".parse().unwrap());
        assert!(rights.allows(Permission::Subscribe, &a) && rights.allows(Permission::Publish, &a));
        assert!(rights.allows(Permission::History, &b) && !rights.allows(Permission::Publish, &b));
        assert!(!rights.allows(Permission::Presence, &a));
        assert!(Permission::ALL.iter().all(|permission| !rights.allows(*permission, &live)));
    }

    #[test]
    fn private_messages_go_to_granted_addresses_only() {
        let rights =
            Rights::new(None, None, &grants(r#"{"user:ann": ["send"], "**": ["publish"]}"#)).unwrap();
        assert!(rights.may_send(&Target::User("ann".parse().unwrap())));
        assert!(!rights.may_send(&Target::User("bob".parse().unwrap())));
        assert!(!rights.may_send(&Target::Session(xpush_protocol::SessionId::random())));
        assert!(Rights::everything().may_send(&Target::User("org:1".parse().unwrap())));
    }

    #[test]
    fn rights_in_one_app_are_none_in_another() {
        let [shop, game] = ["shop", "game"].map(|app| app.parse::<AppId>().unwrap());
        let ann = Some("ann".parse().unwrap());
        let grants = grants(r#"{"**": ["publish", "send"], "chat:{user}": ["history"]}"#);
        let token = Rights::new(ann, None, &grants).unwrap().within(shop.clone());
        let (room, chat): (ChannelName, ChannelName) =
            ("room:a".parse().unwrap(), "chat:ann".parse().unwrap());
        for rights in [token.clone(), Rights::everything_in(shop.clone())] {
            for other in [&room, &room.within(&game)] {
                assert!(!rights.allows(Permission::Publish, other), "{other:?}");
            }
            assert!(rights.allows(Permission::Publish, &room.within(&shop)));
            let bob = |app| Target::User("bob".parse::<UserId>().unwrap().within(app));
            assert!(rights.may_send(&bob(&shop)));
            assert!(!rights.may_send(&bob(&game)) && !rights.may_send(&bob(&AppId::default())));
        }
        assert!(token.allows(Permission::History, &chat.within(&shop)), "`{{user}}` is the local name");
        assert_eq!(token.user().map(|user| (user.app(), user.local())), Some((shop.clone(), "ann")));
        assert!(Rights::everything_in(shop).is_everything());
    }

    #[test]
    fn grants_have_an_end() {
        let many = |n: usize| (0..n).map(|i| (format!("room:{i}"), Permissions::ALL)).collect();
        assert!(Rights::new(None, None, &many(MAX_GRANTS)).is_ok());
        assert_eq!(Rights::new(None, None, &many(MAX_GRANTS + 1)), Err(GrantError::TooMany(MAX_GRANTS + 1)));
    }

    #[test]
    fn an_unknown_permission_is_an_error() {
        let error = serde_json::from_str::<Permissions>(r#"["subscibe"]"#).unwrap_err();
        assert!(error.to_string().contains("unknown variant `subscibe`"), "{error}");
        assert_eq!(serde_json::to_string(&Permissions::ALL).unwrap().matches(',').count(), 4);
    }
}
