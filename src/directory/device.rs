//! A user's devices.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use xpush_protocol::{DeviceId, SessionId, UserId};

use super::{
    Change, Directory, DirectoryError, Record, Result, Tagged,
    app::{check_text, check_version},
    millis,
    page::{Page, PageQuery},
    profile::given,
    record::encode,
    store::{Commit, Key, Prefix, Scan},
    user::User,
};

/// Bytes of a device's name, platform and version: each is a few words.
const MAX_TEXT: usize = 128;
/// FCM's tokens have some 200 bytes; a web push subscription has a few keys and an address.
const MAX_PUSH: usize = 4096;

/// A device, as it is kept and as its user sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    pub device: DeviceId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `ios`, `android`, `web`, as the application calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locale: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub push: Option<Push>,
    /// Milliseconds since 1970, as `last_seen`.
    pub created: u64,
    pub last_seen: u64,
    /// The session that it began last. Whether that still is, its presence says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
}

/// Where a device can be woken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Push {
    /// `apns`, `fcm`, `webpush`.
    pub kind: String,
    pub token: String,
}

/// What may be said of a device; absent: as it was, `null`: it goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeviceChange {
    #[serde(deserialize_with = "given")]
    pub name: Option<Option<String>>,
    #[serde(deserialize_with = "given")]
    pub platform: Option<Option<String>>,
    #[serde(deserialize_with = "given")]
    pub app_version: Option<Option<String>>,
    #[serde(deserialize_with = "given")]
    pub locale: Option<Option<String>>,
    #[serde(deserialize_with = "given")]
    pub push: Option<Option<Push>>,
}

/// A device that registers itself: a new one if it has no id yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceSaid {
    pub device: Option<DeviceId>,
    pub is: DeviceChange,
}

impl Record for Device {}

impl Device {
    pub(crate) fn key(user: &UserId, device: &DeviceId) -> Key {
        Key::new(&["device", user.app().as_str(), user.local(), device.as_str()])
    }

    fn new(device: &DeviceId) -> Self {
        let now = millis(SystemTime::now());
        Self {
            device: device.clone(),
            name: None,
            platform: None,
            app_version: None,
            locale: None,
            push: None,
            created: now,
            last_seen: now,
            session: None,
        }
    }
}

impl DeviceChange {
    /// Whether it can be said of a device at all.
    pub(super) fn check(&self) -> Result<()> {
        self.apply(&mut Device::new(&DeviceId::random()))
    }

    fn apply(&self, device: &mut Device) -> Result<()> {
        for (field, change, target) in [
            ("name", &self.name, &mut device.name),
            ("platform", &self.platform, &mut device.platform),
            ("app_version", &self.app_version, &mut device.app_version),
            ("locale", &self.locale, &mut device.locale),
        ] {
            if let Some(change) = change {
                change.as_deref().map_or(Ok(()), |text| check_text(field, text, MAX_TEXT))?;
                target.clone_from(change);
            }
        }
        if let Some(push) = &self.push {
            if let Some(Push { kind, token }) = push {
                check_text("push.kind", kind, MAX_TEXT)?;
                check_text("push.token", token, MAX_PUSH)?;
            }
            device.push.clone_from(push);
        }
        Ok(())
    }
}

fn of_user(user: &UserId) -> Prefix {
    Prefix::new(&["device", user.app().as_str(), user.local()])
}

impl Directory {
    /// Registers a device, or says anew what it is.
    pub async fn register_device(&self, user: &UserId, said: &DeviceSaid) -> Result<Tagged<Device>> {
        let id = said.device.clone().unwrap_or_else(DeviceId::random);
        self.change(|| async {
            // A user that goes meanwhile takes its devices with it.
            let owner = self.user(user).await?;
            let commit = Commit::new().expect(User::key(user), Some(owner.version));
            Ok((self.enter_device(commit, user, &id, &said.is).await?, ()))
        })
        .await?;
        self.device(user, &id).await
    }

    /// Adds to a commit that the device is there, and what it is.
    pub(super) async fn enter_device(
        &self,
        commit: Commit,
        user: &UserId,
        id: &DeviceId,
        said: &DeviceChange,
    ) -> Result<Commit> {
        let key = Device::key(user, id);
        let found = self.read::<Device>(&key).await?;
        let version = found.as_ref().map(|found| found.version);
        if found.is_none() {
            let most = self.policy(&user.app()).await?.quotas.devices_per_user;
            let count = self.store.scan(Scan::of(of_user(user))).await?.len();
            if count >= usize::try_from(most).unwrap_or(usize::MAX) {
                return Err(DirectoryError::LimitReached(format!(
                    "`devices_per_user` is {most}: remove a device first"
                )));
            }
        }
        let mut device = found.map_or_else(|| Device::new(id), |found| found.value);
        device.last_seen = millis(SystemTime::now());
        said.apply(&mut device)?;
        Ok(commit.expect(key.clone(), version).put(key, encode(&device)))
    }

    pub async fn device(&self, user: &UserId, device: &DeviceId) -> Result<Tagged<Device>> {
        self.read(&Device::key(user, device)).await?.ok_or(DirectoryError::NotFound("device"))
    }

    pub async fn devices(&self, user: &UserId, query: PageQuery) -> Result<Page<Device>> {
        self.user(user).await?;
        Ok(self.page::<Device>(of_user(user), query).await?.filter_map(|_, device| Some(device)))
    }

    pub async fn update_device(
        &self,
        user: &UserId,
        id: &DeviceId,
        expected: Option<u64>,
        changes: &DeviceChange,
    ) -> Result<Tagged<Device>> {
        self.change(|| async {
            let present = self.device(user, id).await?;
            check_version(expected, present.version)?;
            let mut changed = present.value;
            changes.apply(&mut changed)?;
            let key = Device::key(user, id);
            Ok((Commit::new().expect(key.clone(), Some(present.version)).put(key, encode(&changed)), ()))
        })
        .await?;
        self.device(user, id).await
    }

    /// The device is the user's no more: its logins end, and its sessions on every node.
    pub async fn revoke_device(&self, user: &UserId, id: &DeviceId, expected: Option<u64>) -> Result<()> {
        self.change(|| async {
            let present = self.device(user, id).await?;
            check_version(expected, present.version)?;
            let key = Device::key(user, id);
            let commit = Commit::new().expect(key.clone(), Some(present.version)).delete(key);
            let logins = self.logins(user).await?;
            let of_it = logins.into_iter().filter(|(_, login)| login.value.device.as_ref() == Some(id));
            let commit = of_it.fold(commit, |commit, (key, _)| commit.delete(key));
            let change = Change::Device { app: user.app(), user: user.clone(), device: id.clone() };
            Ok((commit.tell(&change), ()))
        })
        .await
    }
}
