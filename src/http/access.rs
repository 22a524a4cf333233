//! Who is calling, and from which page.

use std::{net::SocketAddr, time::Duration};

use axum::{
    extract::{FromRequestParts, Request, State},
    http::{HeaderValue, Method, StatusCode, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use xpush_protocol::{AppId, ErrorCode, UserId};

use xpush_transports::{authority_is_loopback, host};

use super::{Api, Problem};
use crate::{
    auth::{ApiKey, Permission, Rights},
    node::Node,
    publication::Publisher,
    session::Refusal,
};

/// For a whole request of the API, the slowest disk included.
const REQUEST_DEADLINE: Duration = Duration::from_secs(60);

/// The other end of the TCP connection; put into every request by `server`.
#[derive(Debug, Clone, Copy)]
pub struct PeerAddress(pub SocketAddr);

/// Who is calling: a backend with an API key, a client with a token, or nobody where nobody may.
pub(super) struct Caller {
    pub(super) rights: Rights,
    /// In whose name message ids are unique.
    pub(super) publisher: Publisher,
    /// A backend publishes as fast as it likes; a client does not, whichever way it comes.
    pub(super) is_backend: bool,
    /// An unrestricted API key of the configuration and of the default app, or this machine in development: it may ask
    /// for what is of no app, and act in any.
    is_operator: bool,
}

impl Caller {
    pub(super) fn user(&self) -> Option<&UserId> {
        self.rights.user()
    }

    /// Whose names it says: what comes from outside is local, and becomes `name.within(caller.app())` at the door.
    pub(super) fn app(&self) -> &AppId {
        self.rights.app()
    }

    /// What concerns a node or an app is for whoever runs the installation.
    pub(super) fn require_operator(&self) -> Result<(), Refusal> {
        if self.is_operator {
            return Ok(());
        }
        let message =
            "this needs an API key of the configuration, of the default app and without restrictions";
        Err(Refusal::new(ErrorCode::PermissionDenied, message))
    }

    /// What concerns users and nothing of channels is for a backend that may do everything in its app.
    pub(super) fn require_backend(&self) -> Result<(), Refusal> {
        if self.is_backend && self.rights.is_everything() {
            return Ok(());
        }
        Err(Refusal::new(ErrorCode::PermissionDenied, "this needs an API key without restrictions"))
    }

    /// The user of a path, of the caller's app: a user asks for itself alone, a backend for everybody.
    pub(super) fn acts_for(&self, user: &UserId) -> Result<UserId, Refusal> {
        let user = user.within(self.app());
        match self.user() {
            Some(own) if !self.is_backend && *own == user => Ok(user),
            None if self.is_backend => self.require_backend().map(|()| user),
            _ => Err(Refusal::new(ErrorCode::PermissionDenied, "this is for that user itself, or a backend")),
        }
    }

    /// Who acts, where the path does not say it: the caller itself, or whom a backend names.
    pub(super) fn acting_as(&self, named: Option<&UserId>) -> Result<UserId, Refusal> {
        match (self.user(), named) {
            (Some(own), None) if !self.is_backend => Ok(own.clone()),
            (None, Some(named)) if self.is_backend => self.acts_for(named),
            (None, None) if self.is_backend => {
                Err(Refusal::new(ErrorCode::InvalidField, "`as` is missing: in whose name is it?"))
            }
            (_, Some(_)) => {
                Err(Refusal::new(ErrorCode::InvalidField, "`as` is for backends; a user acts as itself"))
            }
            _ => Err(Refusal::new(ErrorCode::PermissionDenied, "the token names no user")),
        }
    }

    /// By a grant, or by what the directory says of the channel's members.
    pub(super) async fn require(
        &self,
        node: &Node,
        permission: Permission,
        channel: &xpush_protocol::ChannelName,
    ) -> Result<(), Refusal> {
        node.require(&self.rights, permission, channel).await
    }
}

impl FromRequestParts<Api> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        Ok(identify(&api.node, parts).await?)
    }
}

/// Who is calling where anybody may: nobody, unless a credential is shown.
pub(super) struct Visitor(pub(super) Option<Caller>);

impl FromRequestParts<Api> for Visitor {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        // Who names an app so is an operator, on this machine maybe without a key.
        let is_shown =
            [header::AUTHORIZATION.as_str(), APP_HEADER].iter().any(|name| parts.headers.contains_key(*name));
        if !is_shown {
            return Ok(Self(None));
        }
        Caller::from_request_parts(parts, api).await.map(Some).map(Self)
    }
}

/// In which app an operator wants to act.
const APP_HEADER: &str = "x-xpush-app";

async fn identify(node: &Node, parts: &Parts) -> Result<Caller, Refusal> {
    let caller = identify_in_named_app(node, parts).await?;
    let origin = parts.headers.get(header::ORIGIN).and_then(|origin| origin.to_str().ok());
    node.check_page(&caller.rights, origin).await?;
    Ok(caller)
}

async fn identify_in_named_app(node: &Node, parts: &Parts) -> Result<Caller, Refusal> {
    let caller = identify_in_own_app(node, parts).await?;
    let mut named = parts.headers.get_all(APP_HEADER).iter();
    let Some(app) = named.next() else { return Ok(caller) };
    caller.require_operator()?;
    if named.next().is_some() {
        return Err(Refusal::new(ErrorCode::InvalidField, format!("{APP_HEADER} is there twice")));
    }
    let app: AppId = app
        .to_str()
        .unwrap_or_default()
        .parse()
        .map_err(|error| Refusal::new(ErrorCode::InvalidName, format!("{APP_HEADER}: {error}")))?;
    node.directory.policy(&app).await?;
    Ok(Caller { rights: caller.rights.within(app), ..caller })
}

async fn identify_in_own_app(node: &Node, parts: &Parts) -> Result<Caller, Refusal> {
    let Some(credential) = parts.headers.get(header::AUTHORIZATION) else {
        let Some(PeerAddress(peer)) = parts.extensions.get() else {
            return Err(Refusal::new(ErrorCode::Internal, "the server did not note who is calling"));
        };
        // A name that leads to this machine from elsewhere (DNS rebinding) is no loopback call.
        let is_elsewhere = !authority_is_loopback(host(&parts.headers, &parts.uri));
        let rights = node.without_token(peer.ip(), is_elsewhere).await.map_err(|refusal| {
            if refusal.code != ErrorCode::Unauthenticated {
                return refusal;
            }
            let message = "no credential: send `Authorization: Bearer` with a token or an API key";
            Refusal::new(ErrorCode::Unauthenticated, message)
        })?;
        let is_backend = rights.is_everything();
        let publisher = Publisher::backend("anonymous");
        return Ok(Caller { rights, publisher, is_backend, is_operator: is_backend });
    };
    let bearer = credential.to_str().ok().and_then(|text| {
        let (scheme, rest) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(rest.trim())
    });
    let Some(bearer) = bearer else {
        let message = "the Authorization header is not `Bearer` with a token or an API key";
        return Err(Refusal::new(ErrorCode::InvalidToken, message));
    };
    if let Some(backend) = node.backend(bearer).await? {
        let publisher = Publisher::backend(&backend.id);
        let is_operator = node.is_configured_key(bearer)
            && backend.rights.is_everything()
            && backend.rights.app().is_default();
        return Ok(Caller { publisher, rights: backend.rights, is_backend: true, is_operator });
    }
    let rights = node.verify(bearer).await?;
    introduce(node, &rights, parts).await?;
    // Whose token names no user is known by the token.
    let of_token = || Publisher::backend(&format!("token-{}", ApiKey::hash(bearer)));
    let publisher = rights.user().map_or_else(of_token, Publisher::user);
    Ok(Caller { publisher, rights, is_backend: false, is_operator: false })
}

/// Whom only the application's own tokens name becomes a user that others can find and invite as soon as it does
/// something with channels or people; to read, or to publish, it need not be one.
async fn introduce(node: &Node, rights: &Rights, parts: &Parts) -> Result<(), Refusal> {
    let is_of_login = rights.account().is_some_and(|account| account.login.is_some());
    let path = parts.uri.path();
    let concerns_people = path.starts_with("/v1/channels") || path.starts_with("/v1/users/");
    match rights.user() {
        Some(user) if !is_of_login && concerns_people && !parts.method.is_safe() => {
            Ok(node.directory.ensure_user(rights.app(), user).await?)
        }
        _ => Ok(()),
    }
}

/// A request whose body does not come is given up.
pub(super) async fn keep_deadline(request: Request, next: Next) -> Response {
    let answered = tokio::time::timeout(REQUEST_DEADLINE, next.run(request)).await;
    answered.unwrap_or_else(|_| {
        let message = "the request did not come, or was not done, in time";
        Problem::with_status(StatusCode::REQUEST_TIMEOUT, ErrorCode::Malformed, message).into_response()
    })
}

/// CORS: a page of an allowed origin may call and read, another may do neither.
pub(super) async fn check_origin(State(api): State<Api>, request: Request, next: Next) -> Response {
    let Some(origin) = request.headers().get(header::ORIGIN).cloned() else { return next.run(request).await };
    if !api.origins.allow(origin.to_str().ok(), host(request.headers(), request.uri())) {
        let message = "pages of this origin may not call; add it to `origins` in the configuration";
        return Problem::from(Refusal::new(ErrorCode::PermissionDenied, message)).into_response();
    }
    let preflight = request.method() == Method::OPTIONS;
    let mut response =
        if preflight { StatusCode::NO_CONTENT.into_response() } else { next.run(request).await };
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static("etag, retry-after, idempotency-replayed"),
    );
    headers.insert(header::VARY, HeaderValue::from_static("origin"));
    if preflight {
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("GET, POST, PUT, PATCH, DELETE"),
        );
        let allowed =
            HeaderValue::from_static("authorization, content-type, idempotency-key, if-match, x-xpush-app");
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed);
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    }
    response
}
