//! What the rooms of the server are handed: their own types, made out of the configuration.

use std::fs;

use xpush_protocol::AppId;
use xpush_transports as transports;

use super::{BackendKey, Config, ConfigError, NamespaceSection, Origins, RetentionKind, TokenKey};
use crate::{
    auth::{self, Algorithm, ApiKey, ApiKeys, DevKeys, Key, Signer, StateSealer, Verifier},
    log::Keep,
    namespace::{DEFAULT_RECENT_SIZE, DEFAULT_RECENT_TTL, INBOX, Namespaces, Policy, Retention},
};

/// Who is let in, and with which keys of our own making.
#[derive(Debug)]
pub struct Access {
    pub auth: auth::Auth,
    /// In development mode: what tokens are signed with, and the API key to show.
    pub dev_keys: Option<DevKeys>,
}

impl Config {
    /// No keys are configured: those of the data directory are used.
    #[must_use]
    pub fn is_development(&self) -> bool {
        self.auth.keys.is_empty()
    }

    /// Clients of this machine need no token.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        self.auth.anonymous.unwrap_or_else(|| self.is_development())
    }

    /// The door. Makes the development keys if they are needed and not there.
    pub fn access(&self) -> Result<Access, ConfigError> {
        let sealer = match &self.auth.state_secret {
            Some(secret) => StateSealer::new(secret.expose().as_bytes()),
            None => StateSealer::new(self.dev_keys()?.state_secret()),
        };
        let dev_keys = if self.is_development() { Some(self.dev_keys()?) } else { None };
        let mut keys = self.token_keys()?;
        let mut backends = self.backend_keys()?;
        if let Some(dev_keys) = &dev_keys {
            let wrong = |error: &dyn std::fmt::Display| ConfigError::DevKeys(error.to_string());
            keys.push(dev_keys.key().map_err(|error| wrong(&error))?);
            backends.push(dev_keys.backend_key().map_err(|error| wrong(&error))?);
        }
        let auth = auth::Auth {
            verifier: Verifier::new(keys),
            api_keys: ApiKeys::new(backends).map_err(|error| rule("auth.api_keys", &error))?,
            sealer,
            loopback_anonymous: self.is_anonymous(),
        };
        Ok(Access { auth, dev_keys })
    }

    /// What signs tokens of this app that this server takes: the development key, or the first secret that is configured
    /// for it.
    pub fn signer(&self, app: &AppId) -> Result<Signer, ConfigError> {
        if self.is_development() && app.is_default() {
            return self.dev_keys()?.signer().map_err(|error| ConfigError::DevKeys(error.to_string()));
        }
        let keys = self.auth.keys.iter().filter(|key| key.app == *app);
        let secret = keys.clone().find_map(|key| Some((key, key.secret.as_ref()?)));
        let (key, secret) = secret.ok_or_else(|| ConfigError::Rule {
            key: "auth.keys".into(),
            problem: if keys.count() == 0 {
                format!("has no key of the app {app}")
            } else {
                "has public keys only; to sign a token, the private key must be given".into()
            },
        })?;
        Signer::new(Algorithm::Hs256, key.id.clone(), secret.expose().as_bytes())
            .map_err(|error| rule("auth.keys.secret", &error))
    }

    #[must_use]
    pub fn namespaces(&self) -> Namespaces {
        let policies = self.namespaces.iter().map(|(name, section)| (name.clone(), section.policy()));
        let inboxes = INBOX.parse().map(|name| (name, Policy::of_inboxes()));
        policies.chain(inboxes).collect()
    }

    /// What holds for every wire.
    #[must_use]
    pub fn transport_settings(&self) -> transports::Settings {
        transports::Settings {
            frame_limit: usize::try_from(self.limits.frame.0).unwrap_or(usize::MAX),
            handshake_deadline: self.limits.handshake_deadline.duration(),
            idle_deadline: self.limits.idle_deadline.duration(),
            origins: match &self.origins {
                Origins::Any => transports::Origins::Any,
                Origins::SameHost => transports::Origins::SameHost,
                Origins::List(list) => transports::Origins::List(list.clone()),
            },
        }
    }

    pub(super) fn token_keys(&self) -> Result<Vec<Key>, ConfigError> {
        self.auth.keys.iter().map(TokenKey::key).collect()
    }

    pub(super) fn backend_keys(&self) -> Result<Vec<ApiKey>, ConfigError> {
        let key = |key: &BackendKey| {
            ApiKey::new(&key.id, &key.sha256, key.grants.as_ref()).map(|made| made.of_app(key.app.clone()))
        };
        let keys = self.auth.api_keys.iter().map(key).collect::<Result<Vec<_>, _>>();
        let keys = keys.map_err(|error| rule("auth.api_keys", &error))?;
        ApiKeys::new(keys.clone()).map_err(|error| rule("auth.api_keys", &error))?;
        Ok(keys)
    }

    fn dev_keys(&self) -> Result<DevKeys, ConfigError> {
        DevKeys::load_or_create(&self.store.path).map_err(|error| ConfigError::DevKeys(error.to_string()))
    }
}

impl TokenKey {
    fn key(&self) -> Result<Key, ConfigError> {
        let material = self.material()?;
        let key = Key::new(self.algorithm, &material).map_err(|error| rule("auth.keys", &error))?;
        let key = key.of_app(self.app.clone()).with_id(self.id.clone());
        Ok(key.with_audience(self.audience.clone()).with_issuer(self.issuer.clone()))
    }

    fn material(&self) -> Result<Vec<u8>, ConfigError> {
        let problem = match (self.algorithm, &self.secret, &self.public_key, &self.public_key_file) {
            (Algorithm::Hs256, Some(secret), None, None) => return Ok(secret.expose().as_bytes().to_vec()),
            (Algorithm::Hs256, ..) => "for HS256 need `secret`, and no public key",
            (_, None, Some(pem), None) => return Ok(pem.as_bytes().to_vec()),
            (_, None, None, Some(path)) => {
                return fs::read(path).map_err(|error| ConfigError::Rule {
                    key: "auth.keys.public_key_file".into(),
                    problem: format!("is {}, which can't be read: {error}", path.display()),
                });
            }
            _ => "need one of `public_key` and `public_key_file`, and no `secret`, unless for HS256",
        };
        Err(ConfigError::Rule { key: "auth.keys".into(), problem: problem.into() })
    }
}

impl NamespaceSection {
    fn policy(&self) -> Policy {
        let retention = match self.retention {
            Some(RetentionKind::Recent) => Retention::Recent {
                size: self.size.unwrap_or(DEFAULT_RECENT_SIZE),
                ttl: self.ttl.map_or(DEFAULT_RECENT_TTL, super::Span::duration),
            },
            Some(RetentionKind::Durable) => Retention::Durable {
                keep: Keep { count: self.keep_count, age: self.keep_age.map(super::Span::duration) },
            },
            // `rules` has refused a section without retention.
            Some(RetentionKind::None) | None => Retention::None,
        };
        Policy {
            retention,
            presence: self.presence.unwrap_or(false),
            history: self.history.unwrap_or(retention != Retention::None),
            access: self.access.unwrap_or_default(),
            receipts: self.receipts.unwrap_or(false),
        }
    }
}

fn rule(key: &str, error: &dyn std::fmt::Display) -> ConfigError {
    ConfigError::Rule { key: key.into(), problem: format!("can't be used: {error}") }
}
