"""Tables of comparable results in Markdown, JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from eval.ranking import RULES, Row, Table, in_unit
from eval.results import SCHEMA
from eval.text import spreadsheet_cell, visible

OTHER_UNIT = {"nats/image": "bits/dim", "bits/dim": "nats/image"}


def number(value: float, unit: str) -> str:
    """Format a measured number in its unit: hundredths of nats, ten-thousandths of bits/dim."""
    return f"{value:.2f}" if unit == "nats/image" else f"{value:.4f}"


def score(row: Row, table: Table, unit: str) -> str:
    """Format a row's number with its mark, its standard error and, in the table's unit, its K."""
    value = in_unit(row.nats, unit, table.images)
    if row.reference is None:
        text = number(value, unit)
    elif row.reference.unit == unit:  # at least two digits, or all that were published
        text = max(f"{value:.2f}", str(row.reference.value), key=len)
    else:
        text = f"{value:.4g}" if unit == "nats/image" else f"{value:.4f}"
    if row.kind in ("bound", "estimate"):
        text = f"{'≤' if row.kind == 'bound' else '≈'} {text}"
    if row.stderr is not None:
        text += f" ± {number(in_unit(row.stderr, unit, table.images), unit)}"
    if row.kind == "estimate" and unit == table.unit:
        text += f" (K={row.k or '?'})"
    return text


def place(row: Row) -> str:
    """Format a rank: an equals sign marks a tie, a dash a row without a rank."""
    return "–" if row.rank is None else f"{'=' if row.tie else ''}{row.rank}"


def cells(row: Row, table: Table) -> list[str]:
    """Return a row's cells, in the order of `columns`."""
    unit = table.unit
    parts = [
        "" if row.bound is None else f"≤ {number(in_unit(row.bound, unit, table.images), unit)}",
        "" if row.rate is None else number(in_unit(row.rate, unit, table.images), unit),
        "" if row.parameters is None else f"{row.parameters:,}",
    ]
    remarks = "; ".join([*row.flags, row.note] if row.note else row.flags)
    return [
        place(row),
        visible(row.name),
        score(row, table, unit),
        score(row, table, OTHER_UNIT[unit]),
        *parts,
        visible(row.source),
        visible(remarks),
    ]


def columns(table: Table) -> list[str]:
    """Return the column names."""
    return [
        "rank",
        "model",
        table.unit,
        OTHER_UNIT[table.unit],
        "bound",
        "rate",
        "parameters",
        "source",
        "remarks",
    ]


def _escape(text: str) -> str:
    """Make any text safe inside a Markdown table cell."""
    for mark, instead in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "\\|")):
        text = text.replace(mark, instead)
    for mark in "*_`[]":
        text = text.replace(mark, "\\" + mark)
    return visible(" ".join(text.split()))


def to_markdown(boards: Sequence[Table]) -> str:
    """Return the tables in Markdown, with the rules of comparison at the end."""
    lines = []
    for table in boards:
        header = columns(table)
        lines += [f"### {_escape(table.title)}", ""]
        lines += ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
        for row in (*table.ranked, *table.apart):
            lines.append("| " + " | ".join(_escape(cell) for cell in cells(row, table)) + " |")
        lines.append("")
    return "\n".join([*lines, *(f"- {rule}" for rule in RULES), ""])


def records(boards: Sequence[Table]) -> list[dict[str, Any]]:
    """Return every row as a flat record in both units, for CSV and JSON."""
    flat = []
    for table in boards:
        images = table.images
        for row in (*table.ranked, *table.apart):
            units = {}
            for name in ("nats", "stderr", "bound", "rate", "distortion"):
                value = getattr(row, name)
                units[name] = value
                bits = None if value is None else in_unit(value, "bits/dim", images)
                units["bits_per_dim" if name == "nats" else f"{name}_bits_per_dim"] = bits
            reference = row.reference
            flat.append(
                {
                    "table": table.title,
                    "rank": row.rank,
                    "tie": row.tie,
                    "model": row.name,
                    "kind": row.kind,
                    "k": row.k,
                    **units,
                    **images._asdict(),
                    "image_shape": list(images.image_shape),
                    "parameters": row.parameters,
                    "seconds": row.seconds,
                    "flags": list(row.flags),
                    "source": row.source,
                    "url": row.url,
                    "mark": reference.mark if reference else "measured",
                    "note": row.note,
                    "path": str(row.found.path) if row.found else "",
                    "command": row.found.result.command if row.found else "",
                }
            )
    return flat


def to_json(boards: Sequence[Table]) -> str:
    """Return the rows and the rules as a JSON object, in ASCII."""
    book = {"schema": SCHEMA, "rules": list(RULES), "rows": records(boards)}
    return json.dumps(book, indent=2, allow_nan=False) + "\n"


def to_csv(boards: Sequence[Table]) -> str:
    """Return one CSV line per row, without the rules; spaces or semicolons join lists.

    Text that a spreadsheet would take for a formula begins with an apostrophe.
    """
    rows = records(boards)
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        shape = " ".join(map(str, row["image_shape"]))
        joined = {**row, "image_shape": shape, "flags": "; ".join(row["flags"])}
        writer.writerow({name: spreadsheet_cell(value) for name, value in joined.items()})
    return text.getvalue()
