//! The API's description. Each room of the API has a part of its own beside its code; together they are one document.
//!
//! What the parts share is in `core.json`, once. `components/responses`: a refusal for each status (`BadRequest` 400,
//! `Unauthenticated` and `InvalidCredentials` 401, `Forbidden` 403, `NotFound` 404, `AlreadyExists` 409,
//! `PreconditionFailed` 412, `TooLarge` 413, `NotJson` 415, `InvalidField` 422, `TooMany` 429, `Internal` 500,
//! `Unavailable` 503), whose schema is `Problem`. `components/parameters`: `Limit` and `Cursor` of a page, `IfMatch`,
//! `IdempotencyKey`, `App`, and `User` and `Channel` in a path. `components/headers`: `ETag`, `Retry-After`.
//! `components/schemas`: the names (`UserId`, `ChannelName`, `AppId`, `DeviceId`, `EventName`, `MessageId`), `Time`, and
//! `Next`, the cursor of a page. The whole document has `security` by `bearer`; an operation that needs no credential
//! says `"security": []`.

use std::sync::LazyLock;

use axum::{http::header, response::IntoResponse};
use serde_json::Value;

const PARTS: [&str; 6] = [
    include_str!("openapi/core.json"),
    include_str!("openapi/apps.json"),
    include_str!("openapi/accounts.json"),
    include_str!("openapi/contacts.json"),
    include_str!("openapi/conversations.json"),
    include_str!("openapi/webhooks.json"),
];

static DOCUMENT: LazyLock<String> = LazyLock::new(|| document().to_string());

/// `GET /v1/openapi.json`
pub(super) async fn answer() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT.as_str())
}

/// The first part with everything that the others add.
fn document() -> Value {
    // The parts are compiled in, and read by a test.
    #[allow(clippy::expect_used)]
    let parts = PARTS.map(|part| serde_json::from_str::<Value>(part).expect("a part is JSON"));
    parts.into_iter().fold(Value::Null, merge)
}

/// Objects are joined by their keys, lists put behind each other.
fn merge(whole: Value, part: Value) -> Value {
    match (whole, part) {
        (Value::Object(mut whole), Value::Object(part)) => {
            for (key, value) in part {
                let joined = match whole.remove(&key) {
                    Some(present) => merge(present, value),
                    None => value,
                };
                whole.insert(key, joined);
            }
            Value::Object(whole)
        }
        (Value::Array(mut whole), Value::Array(part)) => {
            whole.extend(part);
            Value::Array(whole)
        }
        (_, part) => part,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_are_one_document() {
        let document = document();
        assert_eq!(document["openapi"], "3.1.0");
        assert!(document["paths"]["/v1/publish"]["post"].is_object());
        // A part that describes a path or a component which another one has would be mixed up with it.
        let keys = |pointer: &str| -> usize {
            let parts = PARTS.map(|part| serde_json::from_str::<Value>(part).unwrap());
            parts
                .iter()
                .map(|part| part.pointer(pointer).map_or(0, |map| map.as_object().unwrap().len()))
                .sum()
        };
        for kind in ["/paths", "/components/schemas", "/components/responses", "/components/parameters"] {
            assert_eq!(document.pointer(kind).unwrap().as_object().unwrap().len(), keys(kind), "{kind}");
        }
    }
}
