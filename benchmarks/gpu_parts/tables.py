"""Measurements as Markdown tables."""

from __future__ import annotations

from gpu_parts.config import Record


def tables(record: Record) -> str:
    """Return the measurements as Markdown."""
    lines: list[str] = []
    if "cards" in (part := record.get("machine", {})):
        lines += _machine(part)
    if "decoders" in (part := record.get("training", {})):
        lines += _training(part)
    part = record.get("sampling", {})
    for name, case in part.get("cases", {}).items():
        lines += _sampling(part, name, case)
    if "runs" in (part := record.get("quality", {})):
        lines += _quality(part)
    if "mean_nats" in (part := record.get("scores", {})):
        lines += _scores(part)
    if "steps" in (part := record.get("resume", {})):
        lines += _resume(part)
    return "\n".join(lines)


def _machine(part: Record) -> list[str]:
    return [
        f"{part['device']}, torch {part['torch']}: bf16 matrix products "
        f"{part['bf16_matrix_rate'] / 1e12:.0f} TFLOP/s, float32 "
        f"{part['float32_matrix_rate'] / 1e12:.0f} TFLOP/s, memory "
        f"{part['copied_bytes_per_second'] / 1e12:.2f} TB/s ({_when(part)}).",
        "",
    ]


def _training(part: Record) -> list[str]:
    return [
        "| training in bf16 | batch | images/s | share of the bf16 rate | compiled: images/s "
        "| share | first step | memory |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        *(_training_row(name, row) for name, row in part["decoders"].items()),
        "",
        f"{part['device']}, {_when(part)}.",
        "",
    ]


def _sampling(part: Record, name: str, case: Record) -> list[str]:
    return [
        f"| sampling {name} | forward pass, s | recorded scan, s | over forward "
        "| launched scan, s | plain scan, s | images/s |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *(_sampling_row(row) for row in case["batches"]),
        "",
        f"{part['device']}, {_when(part)}. Best batch over the plain scan's best batch: "
        f"{case['best_over_best_plain']:,.0f} times the images per second.",
        "",
    ]


def _quality(part: Record) -> list[str]:
    return [
        "| training to a score | nats/image | bits/dim | test images | parameters | training |",
        "| --- | --- | --- | --- | --- | --- |",
        *(_quality_row(name, row) for name, row in part["runs"].items()),
        "",
        f"{part['device']}, {_when(part)}.",
        "",
    ]


def _scores(part: Record) -> list[str]:
    return [
        f"Float32 scores of {part['images']} images by the bundled weights differ from the "
        f"CPU's by at most {part['largest_difference_from_cpu']:.1e} nats of "
        f"{part['mean_nats']:.1f} ({part['device']}, {_when(part)}).",
        "",
    ]


def _resume(part: Record) -> list[str]:
    return [
        f"After {part['steps']} steps the weights of a run stopped half-way and resumed differ "
        f"by at most {part['largest_difference']:.1e} from those of the run in one piece, and "
        "those of two runs in one piece by "
        f"{part['largest_difference_of_two_whole_runs']:.1e}: "
        f"sums on a GPU are not repeatable bit for bit ({part['device']}, {_when(part)}).",
        "",
    ]


def _when(part: Record) -> str:
    return f"{part['date']}, commit {part['commit']}"


def _quality_row(name: str, row: Record) -> str:
    flags = row["flags"]
    cells = (
        f"{name}, {flags['hidden_channels']} × {flags['num_layers']}, {flags['steps']:,} steps of "
        f"{flags['batch_size']}",
        f"{row['value']:.2f} ± {row['stderr']:.2f}", f"{row['bits_per_dim']:.4f}",
        f"{row['count']:,}", f"{row['parameters']:,}", f"{row['train_seconds']:.0f} s",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _training_row(name: str, row: Record) -> str:
    eager, compiled = row["eager"], row["compiled"]
    memory = f"{row['peak_bytes'] / 2**30:.1f} GiB" if "peak_bytes" in row else ""
    cells = (
        name, row["batch"], f"{eager['images_per_second']:,.0f}",
        f"{eager['share_of_matrix_rate']:.1%}", f"{compiled['images_per_second']:,.0f}",
        f"{compiled['share_of_matrix_rate']:.1%}", f"{compiled['first_step']:.0f} s", memory,
    )  # fmt: skip
    return f"| {' | '.join(map(str, cells))} |"


def _sampling_row(row: Record) -> str:
    def cell(name: str, form: str) -> str:
        return format(row[name], form) if name in row else ""

    cells = (
        f"batch {row['batch']}", cell("forward", ".4f"), cell("recorded", ".3f"),
        cell("over_forward", ".1f"), cell("launched", ".3f"), cell("plain", ",.0f"),
        cell("images_per_second", ",.0f"),
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"
