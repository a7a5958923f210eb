"""The format in which every benchmark reports: one JSON object per line."""

import json


def report(
    bench: str,
    row: str,
    value: float,
    unit: str,
    *,
    anchor: str = "",
    ratio: float | None = None,
    target: float | None = None,
    at_most: float | None = None,
) -> None:
    """Print one row.

    Args:
            bench: The name of the module.
        row: What was measured.
        value: The figure, in `unit`.
        unit: The unit of `value`.
        anchor: What `ratio` compares with; measured in the same process.
        ratio: Our figure divided by the anchor's.
        target: The lowest `value` (or `ratio`, if there is one and `unit` is "ratio") that counts as good.
        at_most: The highest `value` that counts as good, where less is better.
    """
    measured = ratio if unit == "ratio" and ratio is not None else value
    line = {
        "bench": bench,
        "row": row,
        "value": round(value, 4),
        "unit": unit,
        "anchor": anchor,
        "ratio": None if ratio is None else round(ratio, 4),
        "target": target if at_most is None else at_most,
        "holds": _holds(measured, target, at_most),
    }
    print(json.dumps(line), flush=True)


def _holds(measured: float, target: float | None, at_most: float | None) -> bool | None:
    if at_most is not None:
        return measured <= at_most
    return None if target is None else measured >= target
