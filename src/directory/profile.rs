//! What of a user is shown, to whom, and what of it the user may change itself.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use xpush_protocol::UserId;

use super::{
    DirectoryError, Result,
    app::{MAX_NAME, check_text},
    user::User,
};

/// An address of a picture.
const MAX_AVATAR: usize = 2048;
/// A language tag (RFC 5646, section 4.4.1).
pub(super) const MAX_LOCALE: usize = 35;
const MAX_STATUS: usize = 256;
/// Bytes of the free data, as JSON.
const MAX_DATA: usize = 8 * 1024;

/// What everybody in the app may see.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// Always there where it is shown.
    #[serde(default, skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub avatar: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
}

/// What the user itself may see.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OwnProfile {
    pub user: UserId,
    /// Milliseconds since 1970.
    pub created: u64,
    pub has_password: bool,
    #[serde(flatten)]
    pub profile: Profile,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locale: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub deactivated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<u64>,
}

/// What may be changed of it; absent: nothing, `null`: it goes. Nothing else of a user has a place in here.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProfileChange {
    #[serde(deserialize_with = "given")]
    pub name: Option<Option<String>>,
    #[serde(deserialize_with = "given")]
    pub avatar: Option<Option<String>>,
    #[serde(deserialize_with = "given")]
    pub locale: Option<Option<String>>,
    #[serde(deserialize_with = "given")]
    pub status: Option<Option<String>>,
    #[serde(deserialize_with = "given")]
    pub data: Option<Option<Map<String, Value>>>,
}

impl ProfileChange {
    pub(super) fn apply(&self, user: &mut User) -> Result<()> {
        let profile = &mut user.profile;
        for (field, change, target, most) in [
            ("name", &self.name, &mut profile.name, MAX_NAME),
            ("avatar", &self.avatar, &mut profile.avatar, MAX_AVATAR),
            ("status", &self.status, &mut profile.status, MAX_STATUS),
            ("locale", &self.locale, &mut user.locale, MAX_LOCALE),
        ] {
            if let Some(change) = change {
                change.as_deref().map_or(Ok(()), |text| check_text(field, text, most))?;
                target.clone_from(change);
            }
        }
        if let Some(data) = &self.data {
            let bytes = data.as_ref().map_or(0, |data| Value::Object(data.clone()).to_string().len());
            if bytes > MAX_DATA {
                return Err(DirectoryError::Invalid(format!(
                    "`data` has {bytes} bytes; {MAX_DATA} at most are allowed"
                )));
            }
            user.data.clone_from(data);
        }
        Ok(())
    }
}

/// As names are looked for: without regard to case.
pub(super) fn folded(name: &str) -> String {
    name.trim().to_lowercase()
}

/// `null` is something that was said.
pub(super) fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}
