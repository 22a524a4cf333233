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
//!
//! What every operation may answer is added here, so that no part has to say it: 403 to a page of a foreign origin, 503,
//! 401 where a credential is needed, 400, 413, 415 and 422 where there is a body, 400 where there are parameters. So is
//! the `Idempotency-Key` of a POST, with its 409. A part that has more to say of one of these says it itself.

use std::sync::LazyLock;

use axum::{http::header, response::IntoResponse};
use serde_json::{Value, json};

const PARTS: [&str; 7] = [
    include_str!("openapi/core.json"),
    include_str!("openapi/apps.json"),
    include_str!("openapi/accounts.json"),
    include_str!("openapi/contacts.json"),
    include_str!("openapi/conversations.json"),
    include_str!("openapi/messages.json"),
    include_str!("openapi/webhooks.json"),
];

static DOCUMENT: LazyLock<String> = LazyLock::new(|| document().to_string());

/// `GET /v1/openapi.json`
pub(super) async fn answer() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT.as_str())
}

/// The first part with everything that the others add, and what holds for all operations.
fn document() -> Value {
    // The parts are compiled in, and read by a test.
    #[allow(clippy::expect_used)]
    let parts = PARTS.map(|part| serde_json::from_str::<Value>(part).expect("a part is JSON"));
    let mut document = parts.into_iter().fold(Value::Null, merge);
    for (path, operations) in document["paths"].as_object_mut().into_iter().flatten() {
        // The wires are no calls, and what machines ask has no refusals.
        if !path.starts_with("/v1/") || ["/v1/connect", "/v1/poll"].contains(&path.as_str()) {
            continue;
        }
        let has_variables = path.contains('{');
        for (method, operation) in operations.as_object_mut().into_iter().flatten() {
            complete(method, operation, has_variables);
        }
    }
    document
}

fn complete(method: &str, operation: &mut Value, has_variables: bool) {
    let needs_credential = operation.get("security").is_none();
    let has_body = operation.get("requestBody").is_some();
    let has_parameters = has_variables || operation.get("parameters").is_some();
    let keyed = method == "post" && needs_credential;
    if keyed {
        let parameter = json!({ "$ref": "#/components/parameters/IdempotencyKey" });
        match &mut operation["parameters"] {
            Value::Array(parameters) if parameters.contains(&parameter) => {}
            Value::Array(parameters) => parameters.push(parameter),
            none => *none = json!([parameter]),
        }
    }
    let may_answer = [
        ("400", "BadRequest", has_body || has_parameters || keyed),
        ("401", "Unauthenticated", needs_credential),
        ("403", "Forbidden", true),
        ("409", "Underway", keyed),
        ("413", "TooLarge", has_body || keyed),
        ("415", "NotJson", has_body),
        ("422", "InvalidField", has_body || keyed),
        ("503", "Unavailable", true),
    ];
    for (status, response, may) in may_answer {
        let answers = &mut operation["responses"];
        if may && answers.get(status).is_none() {
            answers[status] = json!({ "$ref": format!("#/components/responses/{response}") });
        }
    }
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
