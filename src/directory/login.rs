//! Logins: a refresh token that is good for one use, and the access tokens that come of it.
//!
//! A refresh token says which login it is of, in a form that this installation has sealed: one that was made up reaches
//! no record. Its secret is 256 random bits, of which the hash is kept. One of an earlier generation was copied: its
//! login ends, for the thief and the user alike, who logs in again.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{digest, hmac};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;
use xpush_protocol::{AppId, DeviceId, SessionId, UserId};

use super::{
    Change, Directory, DirectoryError, Record, Result, Tagged,
    device::DeviceSaid,
    millis,
    password::Verdict,
    policy::{LoginMode, Registration},
    profile::ProfileChange,
    record::encode,
    store::{Commit, Key, Prefix},
    user::{User, write},
};
use crate::auth::AccessToken;

/// Logins of one user at once; a newer one ends the oldest. Everybody has fewer devices.
const MAX_LOGINS: usize = 100;

const PREFIX: &str = "xpr_";

/// A refresh token has no more bytes: names, ids, secret and seal, in base64.
const MAX_TOKEN: usize = 1024;

/// A login as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Login {
    pub(super) login: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) device: Option<DeviceId>,
    /// Milliseconds since 1970, as `expires`.
    pub(super) created: u64,
    /// Of the refresh token that is good.
    pub(super) generation: u64,
    /// SHA-256 of it, in base64url.
    pub(super) hash: String,
    pub(super) expires: u64,
}

impl Record for Login {}

/// What somebody who logged in gets. Both tokens are told this once.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct Tokens {
    pub user: UserId,
    pub app: AppId,
    pub access_token: String,
    pub token_type: &'static str,
    /// Seconds.
    pub expires_in: u32,
    pub refresh_token: String,
    /// Seconds.
    pub refresh_expires_in: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceId>,
}

impl fmt::Debug for Tokens {
    /// Without the tokens.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tokens({:?}, {:?})", self.user, self.device)
    }
}

/// Who registers.
#[derive(Debug, Clone, Default)]
pub struct NewUser {
    /// `None`: it comes with tokens that somebody else makes. Only a backend makes such a user.
    pub password: Option<String>,
    pub profile: ProfileChange,
    pub device: Option<DeviceSaid>,
}

impl Login {
    pub(crate) fn key(user: &UserId, login: &str) -> Key {
        Key::new(&["login", user.app().as_str(), user.local(), login])
    }
}

/// What a refresh token says.
struct Refresh {
    user: UserId,
    login: String,
    generation: u64,
}

impl Refresh {
    /// A new one, with the hash to keep.
    fn seal(&self, seal: &hmac::Key) -> (String, String) {
        let (app, secret) = (self.user.app(), [SessionId::random(), SessionId::random()]);
        let generation = self.generation.to_string();
        // No name has a control character.
        let text = [
            app.as_str(),
            self.user.local(),
            &self.login,
            &generation,
            secret[0].as_str(),
            secret[1].as_str(),
        ]
        .join("\n");
        let tag = hmac::sign(seal, text.as_bytes());
        let token = URL_SAFE_NO_PAD.encode([tag.as_ref(), text.as_bytes()].concat());
        let token = format!("{PREFIX}{token}");
        let hash = hash(&token);
        (token, hash)
    }

    fn open<'a>(token: &str, mut seals: impl Iterator<Item = &'a hmac::Key>) -> Option<Self> {
        const TAG: usize = digest::SHA256_OUTPUT_LEN;
        if token.len() > MAX_TOKEN {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(token.strip_prefix(PREFIX)?).ok()?;
        let (tag, text) = bytes.split_at_checked(TAG)?;
        if !seals.any(|seal| hmac::verify(seal, text, tag).is_ok()) {
            return None;
        }
        let mut parts = std::str::from_utf8(text).ok()?.split('\n');
        let app: AppId = parts.next()?.parse().ok()?;
        let user = parts.next()?.parse::<UserId>().ok()?.within(&app);
        let login = parts.next()?.to_owned();
        Some(Self { user, login, generation: parts.next()?.parse().ok()? })
    }
}

fn hash(token: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, token.as_bytes()))
}

fn ended(user: &UserId, login: &str) -> Change {
    Change::Login { app: user.app(), user: user.clone(), login: login.into() }
}

impl Directory {
    /// Makes a user. Unless a backend does it, the app has to be open for everybody.
    pub async fn register(&self, user: &UserId, new: &NewUser, is_backend: bool) -> Result<()> {
        let policy = self.policy(&user.app()).await?;
        if !is_backend && policy.registration == Registration::Closed {
            return Err(DirectoryError::Forbidden(
                "this app lets only its backend make users (`policy.registration`)".into(),
            ));
        }
        if !is_backend && new.password.is_none() {
            return Err(DirectoryError::Invalid("`password` is missing".into()));
        }
        if let Some(device) = &new.device {
            device.is.check()?;
        }
        // Before the hash, which costs much more.
        if self.store.get(&User::key(user)).await?.is_some() {
            return Err(DirectoryError::AlreadyExists("user"));
        }
        let hash = match &new.password {
            Some(password) => Some(self.passwords.hash(password).await?),
            None => None,
        };
        self.create_user(user, hash, &new.profile).await
    }

    /// With a password. What is wrong is not said, and takes no less time than what is right.
    pub async fn login(&self, user: &UserId, password: &str, device: Option<&DeviceSaid>) -> Result<Tokens> {
        let found = match self.user(user).await {
            Ok(found) => Some(found.value),
            Err(DirectoryError::NotFound(_)) => None,
            Err(error) => return Err(error),
        };
        let hash = found.as_ref().and_then(|found| found.password.as_deref());
        let renewed = match self.passwords.verify(password, hash).await? {
            Verdict::Wrong => return Err(DirectoryError::InvalidCredentials),
            Verdict::Right => None,
            Verdict::Renewed(renewed) => Some(renewed),
        };
        let checked = found.and_then(|found| found.password);
        self.enter(user, device, |user| {
            // Another password was set while this one was checked.
            if user.password != checked {
                return Err(DirectoryError::InvalidCredentials);
            }
            if let Some(renewed) = &renewed {
                user.password = Some(renewed.clone());
            }
            Ok(())
        })
        .await
    }

    /// A login for whom has been checked already: just registered.
    pub async fn login_as(&self, user: &UserId, device: Option<&DeviceSaid>) -> Result<Tokens> {
        self.enter(user, device, |_| Ok(())).await
    }

    async fn enter(
        &self,
        user: &UserId,
        device: Option<&DeviceSaid>,
        check: impl Fn(&mut User) -> Result<()>,
    ) -> Result<Tokens> {
        let app = user.app();
        let policy = self.policy(&app).await.map_err(|error| match error {
            // An app that is not there has no user either.
            DirectoryError::NotFound(_) => DirectoryError::InvalidCredentials,
            other => other,
        })?;
        let signing = self.signing_key().await?;
        let id = device.map(|said| said.device.clone().unwrap_or_else(DeviceId::random));
        let refresh = Refresh { user: user.clone(), login: SessionId::random().to_string(), generation: 1 };
        let (token, hash) = refresh.seal(&signing.seal);
        let login = refresh.login;
        self.change(|| async {
            let present = self.user(user).await?;
            let mut changed = present.value.clone();
            check(&mut changed)?;
            if changed.deactivated {
                return Err(DirectoryError::Forbidden("the user is deactivated".into()));
            }
            let now = SystemTime::now();
            let end = now + Duration::from_secs(policy.refresh_token_ttl.into());
            let record = Login {
                login: login.clone(),
                device: id.clone(),
                created: millis(now),
                generation: 1,
                hash: hash.clone(),
                expires: millis(end),
            };
            let mut others = self.logins(user).await?;
            others.sort_by_key(|(_, other)| std::cmp::Reverse(other.value.created));
            let spared = others.iter().enumerate().filter(|(at, (_, other))| {
                at + 1 < MAX_LOGINS
                    && match policy.login {
                        LoginMode::Many => true,
                        LoginMode::PerDevice => other.value.device != id,
                        LoginMode::PerUser => false,
                    }
            });
            let spared: Vec<usize> = spared.map(|(at, _)| at).collect();
            // The user is part of it: one that is deactivated or deleted meanwhile gets no login.
            let mut commit = write(Commit::new(), user, Some(&present), &changed);
            for (at, (key, other)) in others.into_iter().enumerate() {
                if !spared.contains(&at) {
                    commit = commit.delete(key).tell(&ended(user, &other.value.login));
                }
            }
            if let (Some(id), Some(said)) = (&id, device) {
                commit = self.enter_device(commit, user, id, &said.is).await?;
            }
            Ok((commit.put_until(Login::key(user, &login), encode(&record), end), ()))
        })
        .await?;
        self.tokens(user, &login, id, token).await
    }

    /// New tokens for a refresh token, which is good this once.
    pub async fn refresh(&self, token: &str) -> Result<Tokens> {
        let invalid = |why: &str| DirectoryError::InvalidToken(format!("the refresh token {why}"));
        let signing = self.signing_key().await?;
        let seals = self.seals();
        let said = Refresh::open(token, seals.iter().map(|key| &key.seal))
            .ok_or_else(|| invalid("is none of this installation"))?;
        let user = &said.user;
        let policy = self.policy(&user.app()).await.map_err(|error| match error {
            DirectoryError::NotFound(_) => invalid("is of an app that is gone"),
            other => other,
        })?;
        let next = Refresh { user: user.clone(), login: said.login.clone(), generation: said.generation + 1 };
        let (fresh, fresh_hash) = next.seal(&signing.seal);
        let outcome = self
            .change(|| async {
                let key = Login::key(user, &said.login);
                let present = self.read::<Login>(&key).await?;
                let present = present.ok_or_else(|| invalid("is of a login that is over: log in again"))?;
                let is_current = present.value.generation == said.generation
                    && bool::from(present.value.hash.as_bytes().ct_eq(hash(token).as_bytes()));
                let commit = Commit::new().expect(key.clone(), Some(present.version));
                if !is_current {
                    let why =
                        "was used twice: its login is ended, in case somebody else has a copy; log in again";
                    return Ok((commit.delete(key).tell(&ended(user, &said.login)), Err(invalid(why))));
                }
                let owner = self.user(user).await.map_err(|error| match error {
                    DirectoryError::NotFound(_) => invalid("is of a user that is gone"),
                    // A store that is away is no reason to log in again.
                    other => other,
                })?;
                if owner.value.deactivated {
                    return Err(invalid("is of a user that is gone"));
                }
                let end = SystemTime::now() + Duration::from_secs(policy.refresh_token_ttl.into());
                let device = present.value.device.clone();
                let record = Login {
                    generation: next.generation,
                    hash: fresh_hash.clone(),
                    expires: millis(end),
                    ..present.value
                };
                Ok((commit.put_until(key, encode(&record), end), Ok(device)))
            })
            .await?;
        self.tokens(user, &said.login, outcome?, fresh).await
    }

    async fn tokens(
        &self,
        user: &UserId,
        login: &str,
        device: Option<DeviceId>,
        refresh_token: String,
    ) -> Result<Tokens> {
        let app = user.app();
        let policy = self.policy(&app).await?;
        let issued = millis(SystemTime::now()) / 1000;
        let ttl = policy.access_token_ttl;
        let said = AccessToken::new(app.clone(), user, login, device.clone(), issued, ttl.into());
        Ok(Tokens {
            user: user.clone(),
            app,
            access_token: self.signing_key().await?.sign(&said)?,
            token_type: "Bearer",
            expires_in: ttl,
            refresh_token,
            refresh_expires_in: policy.refresh_token_ttl,
            device,
        })
    }

    /// All of a user's. There are `MAX_LOGINS` at most, but for those that two nodes made at once.
    pub(super) async fn logins(&self, user: &UserId) -> Result<Vec<(Key, Tagged<Login>)>> {
        self.list(Prefix::new(&["login", user.app().as_str(), user.local()]), None, usize::MAX).await
    }

    /// Ends a login. One that is over already is no error.
    pub async fn logout(&self, user: &UserId, login: &str) -> Result<()> {
        self.change(|| async {
            let key = Login::key(user, login);
            let Some(present) = self.read::<Login>(&key).await? else { return Ok((Commit::new(), ())) };
            let commit = Commit::new().expect(key.clone(), Some(present.version)).delete(key);
            Ok((commit.tell(&ended(user, login)), ()))
        })
        .await
    }

    /// Ends all logins of a user but the one that is spared.
    pub async fn logout_all(&self, user: &UserId, spared: Option<&str>) -> Result<()> {
        self.change(|| async {
            self.user(user).await?;
            Ok((self.end_logins(Commit::new(), user, spared).await?, ()))
        })
        .await
    }

    async fn end_logins(&self, commit: Commit, user: &UserId, spared: Option<&str>) -> Result<Commit> {
        let logins = self.logins(user).await?;
        let ending = logins.into_iter().filter(|(_, login)| Some(&*login.value.login) != spared);
        Ok(ending
            .fold(commit, |commit, (key, login)| commit.delete(key).tell(&ended(user, &login.value.login))))
    }

    /// Sets a password, and ends all logins but the one that is spared. `old`: what it was, unless a backend sets it.
    pub async fn set_password(
        &self,
        user: &UserId,
        old: Option<&str>,
        new: &str,
        spared: Option<&str>,
        is_backend: bool,
    ) -> Result<()> {
        let present = self.user(user).await?.value.password;
        if !is_backend {
            if present.is_none() {
                return Err(DirectoryError::Forbidden(
                    "the user has no password; its backend may set one".into(),
                ));
            }
            let old = old.ok_or_else(|| DirectoryError::Invalid("`old` is missing".into()))?;
            if self.passwords.verify(old, present.as_deref()).await? == Verdict::Wrong {
                return Err(DirectoryError::InvalidCredentials);
            }
        }
        let hash = self.passwords.hash(new).await?;
        self.change(|| async {
            let found = self.user(user).await?;
            if !is_backend && found.value.password != present {
                return Err(DirectoryError::InvalidCredentials);
            }
            let changed = User { password: Some(hash.clone()), ..found.value.clone() };
            let commit = write(Commit::new(), user, Some(&found), &changed);
            Ok((self.end_logins(commit, user, spared).await?, ()))
        })
        .await
    }
}
