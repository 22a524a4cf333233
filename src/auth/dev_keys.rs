//! Development mode: who has configured no keys gets some at the first start, kept beside the data, so that a
//! token made today still holds tomorrow. They are as secret as any; only the bind to other machines is refused
//! with them (`config`), since whoever runs with them has not decided yet who may come in.

use std::{
    fmt, fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Algorithm, ApiKey, ApiKeyError, Claims, Key, KeyError, Signer};

/// In the data directory.
const FILE: &str = "dev-keys.toml";

const API_KEY_ID: &str = "dev";

const HEADER: &str = "\
# Made by xpush at its first start. Keep it secret.
# token_secret (HS256) and api_key are used while no keys are configured; state_secret while auth.state_secret is not.

";

/// The keys of an installation that has none configured.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DevKeys {
    token_secret: String,
    api_key: String,
    state_secret: String,
}

/// Why there are none.
#[derive(Debug, Error)]
pub enum DevKeysError {
    #[error("the development keys in {path} can't be read: {reason}")]
    Read { path: PathBuf, reason: io::Error },
    #[error("the development keys can't be written to {path}: {reason}")]
    Write { path: PathBuf, reason: io::Error },
    #[error("the development keys in {path} are damaged ({reason}); delete the file to have new ones made")]
    Damaged { path: PathBuf, reason: String },
    #[error("no random numbers can be had: {0}")]
    Random(String),
}

impl DevKeys {
    /// Those of the data directory; new ones if it has none.
    pub fn load_or_create(directory: &Path) -> Result<Self, DevKeysError> {
        let path = directory.join(FILE);
        match fs::read_to_string(&path) {
            Ok(text) => {
                tighten(&path).map_err(|reason| DevKeysError::Read { path: path.clone(), reason })?;
                let damaged = |reason| DevKeysError::Damaged { path: path.clone(), reason };
                let keys: Self =
                    toml::from_str(&text).map_err(|error| damaged(error.message().to_owned()))?;
                keys.key().map_err(|error| damaged(error.to_string()))?;
                Ok(keys)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let keys = Self::generate()?;
                keys.write(directory, &path).map_err(|reason| DevKeysError::Write { path, reason })?;
                Ok(keys)
            }
            Err(reason) => Err(DevKeysError::Read { path, reason }),
        }
    }

    /// Verifies the tokens that `signer` makes.
    pub fn key(&self) -> Result<Key, KeyError> {
        Key::new(Algorithm::Hs256, self.token_secret.as_bytes())
    }

    pub fn signer(&self) -> Result<Signer, KeyError> {
        Signer::new(Algorithm::Hs256, None, self.token_secret.as_bytes())
    }

    pub fn sign(&self, claims: &Claims) -> Result<String, KeyError> {
        self.signer()?.sign(claims)
    }

    /// Lets in whoever has `api_key`.
    pub fn backend_key(&self) -> Result<ApiKey, ApiKeyError> {
        ApiKey::new(API_KEY_ID, &ApiKey::hash(&self.api_key), None)
    }

    /// The API key's text, to be shown to the developer.
    #[must_use]
    pub fn api_key(&self) -> &str {
        &self.api_key
    }

    #[must_use]
    pub fn state_secret(&self) -> &[u8] {
        self.state_secret.as_bytes()
    }

    fn generate() -> Result<Self, DevKeysError> {
        let api_key =
            ApiKey::generate(API_KEY_ID).map_err(|error| DevKeysError::Random(error.to_string()))?;
        Ok(Self { token_secret: random_text()?, api_key, state_secret: random_text()? })
    }

    /// A crash leaves the whole file or none; nobody else can read it at any moment.
    fn write(&self, directory: &Path, path: &Path) -> io::Result<()> {
        fs::create_dir_all(directory)?;
        let draft = path.with_extension("toml.new");
        let text = toml::to_string(self).map_err(io::Error::other)?;
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&draft)?;
        file.write_all(HEADER.as_bytes())?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        // One that was left by a crash may have had another mode.
        tighten(&draft)?;
        fs::rename(&draft, path)
    }
}

impl fmt::Debug for DevKeys {
    /// Without the keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DevKeys")
    }
}

/// A copied or restored data directory may have lost the modes of its files.
fn tighten(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mut permissions = fs::metadata(path)?.permissions();
        if permissions.mode() & 0o077 != 0 {
            tracing::warn!(path = %path.display(), "others could read the development keys; now only the owner can");
            permissions.set_mode(0o600);
            fs::set_permissions(path, permissions)?;
        }
    }
    Ok(())
}

fn random_text() -> Result<String, DevKeysError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| DevKeysError::Random(error.to_string()))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::auth::{ApiKeys, Verifier};

    #[test]
    fn the_keys_of_the_first_start_are_those_of_the_next() {
        let directory = tempfile::tempdir().unwrap();
        let first = DevKeys::load_or_create(directory.path()).unwrap();
        let next = DevKeys::load_or_create(directory.path()).unwrap();
        assert!(first == next);
        let other = tempfile::tempdir().unwrap();
        assert!(DevKeys::load_or_create(other.path()).unwrap() != first);

        let token = first.sign(&Claims { sub: Some("ann".parse().unwrap()), ..Claims::default() }).unwrap();
        let verifier = Verifier::new(vec![next.key().unwrap()]);
        assert!(verifier.verify(&token, SystemTime::now()).is_ok());
        assert!(ApiKeys::new([next.backend_key().unwrap()]).unwrap().check(first.api_key()).is_ok());
    }

    #[cfg(unix)]
    #[test]
    fn nobody_else_can_read_the_keys() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        DevKeys::load_or_create(directory.path()).unwrap();
        assert_eq!(mode(), 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        DevKeys::load_or_create(directory.path()).unwrap();
        assert_eq!(mode(), 0o600);
    }

    #[test]
    fn damaged_keys_are_said_to_be() {
        let directory = tempfile::tempdir().unwrap();
        for text in ["", "hello", "token_secret = \"short\"\napi_key = \"\"\nstate_secret = \"\""] {
            fs::write(directory.path().join(FILE), text).unwrap();
            let error = DevKeys::load_or_create(directory.path()).unwrap_err();
            assert!(matches!(error, DevKeysError::Damaged { .. }), "{error}");
        }
    }
}
