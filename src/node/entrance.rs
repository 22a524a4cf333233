//! Who is let in: whose token or API key it is, by the keys of the configuration, by those of the directory, or by those
//! of an issuer that an app names.

use std::{
    collections::HashSet,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use xpush_protocol::{AppId, ErrorCode, UserId};

use super::Node;
use crate::{
    auth::{ApiKey, ApiKeyError, Backend, Hints, Rights, TokenError},
    directory::{Directory, DirectoryError, store::StoreError},
    namespace::Access,
    session::{Recheck, Refusal},
};

/// Users who are let in unchecked. With as many the directory has been away for long, and more wait for it.
const UNCHECKED_LIMIT: usize = 100_000;

/// Users who were let in while the directory was away.
#[derive(Default)]
pub(super) struct Unchecked(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    /// Their sessions may be on their way in: they are looked at a moment later.
    new: HashSet<UserId>,
    old: HashSet<UserId>,
}

impl Unchecked {
    fn add(&self, user: &UserId) -> bool {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let has_room = waiting.new.len() < UNCHECKED_LIMIT;
        if has_room {
            waiting.new.insert(user.clone());
        }
        has_room
    }

    fn take(&self) -> HashSet<UserId> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let new = std::mem::take(&mut waiting.new);
        std::mem::replace(&mut waiting.old, new)
    }
}

impl Node {
    /// The rights of who shows no token: everything for this machine where that is allowed, else what everybody may, if
    /// some namespace is open to everybody. `is_elsewhere`: whatever the address, it is called from another machine.
    pub async fn without_token(&self, address: IpAddr, is_elsewhere: bool) -> Result<Rights, Refusal> {
        match self.auth.anonymous(address).filter(|_| !is_elsewhere) {
            Some(rights) => Ok(rights),
            None if self.is_open().await? => Ok(Rights::nobody()),
            None => Err(TokenError::Missing.into()),
        }
    }

    /// Whether something is open to who has no token at all. It is of the default app: nobody has said of which other.
    async fn is_open(&self) -> Result<bool, Refusal> {
        let is_configured = self.namespaces.iter().any(|(_, policy)| policy.access == Access::Anonymous);
        if is_configured {
            return Ok(true);
        }
        let policy = self.directory.policy(&AppId::default()).await?;
        Ok(policy.namespaces.values().any(|rules| rules.access == Some(Access::Anonymous)))
    }

    /// The rights of a token. One of a user whose login, device or account was taken back is none.
    pub(crate) async fn verify(&self, token: &str) -> Result<Rights, Refusal> {
        let now = SystemTime::now();
        let hints = Hints::of(token)?;
        let rights = if Directory::is_own_token(&hints) {
            self.directory.verify_access_token(token, now).await??
        } else {
            match self.auth.verifier.verify(token, now) {
                Ok(rights) => rights,
                Err(refused) => match hints.iss {
                    Some(issuer) => {
                        self.directory.verify_issued(&issuer, token, now).await?.ok_or(refused)??
                    }
                    None => return Err(refused.into()),
                },
            }
        };
        self.admit(&rights).await?;
        Ok(rights)
    }

    /// As `check_account`, for sessions and at the door. Tokens that the application makes don't need the directory to be
    /// there: what they say is all that can be known then, and is looked at again once it is back.
    pub(crate) async fn admit(&self, rights: &Rights) -> Result<(), DirectoryError> {
        let checked = self.check_account(rights).await;
        let is_ours = rights.account().is_some_and(|account| account.login.is_some());
        match (&checked, rights.user()) {
            (Err(DirectoryError::Store(StoreError::Unavailable(_))), Some(user)) if !is_ours => {
                if self.unchecked.add(user) { Ok(()) } else { checked }
            }
            _ => checked,
        }
    }

    /// Has those look again who were let in while the directory was away. Called once in a while, as long as it answers.
    pub(super) fn recheck_unchecked(&self) {
        let unchecked = self.unchecked.take();
        if !unchecked.is_empty() {
            // Who is still on its way in is in no table, and sees by this that it has to look.
            self.gate.note_change();
        }
        for user in unchecked {
            self.sessions.recheck_user(&user, &Recheck::Account);
        }
    }

    /// Whether pages of this origin may use the app that rights are of. The configuration has let them call already.
    pub(crate) async fn check_page(&self, rights: &Rights, origin: Option<&str>) -> Result<(), Refusal> {
        let Some(origin) = origin else { return Ok(()) };
        let policy = match self.directory.policy(rights.app()).await {
            Ok(policy) => policy,
            // What the configuration says holds on without it.
            Err(DirectoryError::Store(StoreError::Unavailable(_))) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        match &policy.origins {
            Some(allowed) if !allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin)) => {
                let message = "pages of this origin may not use this app; add it to `policy.origins`";
                Err(Refusal::new(ErrorCode::PermissionDenied, message))
            }
            _ => Ok(()),
        }
    }

    /// Whether the user, the device and the login that rights are of still stand.
    async fn check_account(&self, rights: &Rights) -> Result<(), DirectoryError> {
        match (rights.user(), rights.account()) {
            (Some(user), Some(account)) => self.directory.check_account(rights.app(), user, account).await,
            _ => Ok(()),
        }
    }

    /// The backend that this API key is of, or `None` where the text is no API key.
    pub async fn backend(&self, bearer: &str) -> Result<Option<Backend>, Refusal> {
        if !ApiKey::is_meant(bearer) {
            return Ok(None);
        }
        if self.is_configured_key(bearer) {
            return Ok(Some(self.auth.api_keys.check(bearer)?));
        }
        match self.directory.backend(bearer).await? {
            Some(backend) => Ok(Some(backend)),
            None => Err(Refusal::new(ErrorCode::InvalidToken, ApiKeyError::Unknown.to_string())),
        }
    }

    /// Whether the id that an API key names is one of the configuration: of an operator, then.
    pub(crate) fn is_configured_key(&self, bearer: &str) -> bool {
        self.auth.api_keys.know(bearer)
    }
}
