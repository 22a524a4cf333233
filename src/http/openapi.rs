//! The API's description. Each room of the API has a part of its own beside its code; together they are one document.

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
    }
}
