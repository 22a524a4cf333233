"""What schemathesis has to know of this API beyond its description."""

import itertools
import os
import re

import schemathesis
from schemathesis.specs.openapi.checks import negative_data_rejection

# In whose name a backend acts. Empty: a user calls, and may not say `as`.
ACTING = os.environ.get("API_ACTING")
# What a backend can only do in somebody's name.
NEED_A_USER = {"joinChannel", "markRead", "markReceived", "logout"}
KEY = re.compile(r"[!-~]{1,128}")
KEYS = itertools.count()
USER = re.compile(r"[^\x00-\x1f\x7f-\x9f]{1,128}")


def acting(fields):
    """Has a valid `as` name somebody who is there; one that is meant to be wrong stays so."""
    if ACTING is not None and isinstance(fields, dict) and isinstance(fields.get("as"), str) and USER.fullmatch(fields["as"]):
        fields = {name: value for name, value in fields.items() if name != "as"}
        if ACTING:
            fields["as"] = ACTING
    return fields


@schemathesis.hook
def map_query(context, query):
    query = acting(query)
    # Any text can be a cursor for the description; most are none that a list gave, and end the call early.
    if isinstance(query, dict) and isinstance(query.get("cursor"), str) and len(query["cursor"]) % 2:
        query = {name: value for name, value in query.items() if name != "cursor"}
    return query


@schemathesis.hook
def map_headers(context, headers):
    headers = dict(headers or {})
    # A key is for one request, which no generator knows.
    if KEY.fullmatch(str(headers.get("Idempotency-Key", ""))):
        headers["Idempotency-Key"] = f"key-{next(KEYS)}"
    # Nor does it know versions that are there.
    if len(str(headers.get("If-Match", "*"))) % 2 == 0:
        del headers["If-Match"]
    return headers


@schemathesis.hook
def map_body(context, body):
    body = acting(body)
    if ACTING and isinstance(body, dict) and context.operation.definition.raw.get("operationId") in NEED_A_USER:
        return {"as": ACTING} | body
    return body


def has_null(value):
    if isinstance(value, dict):
        return any(part is None or has_null(part) for part in value.values())
    return isinstance(value, list) and any(map(has_null, value))


@schemathesis.check
def wrong_data_is_refused(ctx, response, case):
    """An optional field that is `null` counts as absent, so that such a body is not wrong for it. And who asks for a
    version that is not there is told so, whatever else is wrong."""
    if not has_null(case.body) and response.status_code != 412:
        return negative_data_rejection(ctx, response, case)
