"""What schemathesis has to know of this API beyond its description."""

import schemathesis
from schemathesis.specs.openapi.checks import negative_data_rejection


def has_null(value):
    if isinstance(value, dict):
        return any(part is None or has_null(part) for part in value.values())
    return isinstance(value, list) and any(map(has_null, value))


@schemathesis.check
def wrong_data_is_refused(ctx, response, case):
    """An optional field that is `null` counts as absent, so that such a body is not wrong for it."""
    if not has_null(case.body):
        return negative_data_rejection(ctx, response, case)
