"""The one form in which every benchmark reports: a JSON object a line."""

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
        bench: the module.
        row: what was measured.
        value: the figure, in `unit`.
        anchor: what `ratio` compares with, measured in the same process run.
        ratio: our figure over the anchor's.
        target: lowest `value` (or `ratio`, if there is one and `unit` is "ratio") that counts as good.
        at_most: highest `value` that counts as good, where less is better.
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
