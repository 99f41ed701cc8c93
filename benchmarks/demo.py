"""Claim: the demo's puppet is at least 10 times smaller and at most 1 point worse.

Runs `puppetize demo` for three seeds and writes one row a seed, and their mean, to
`benchmarks/results/demo.csv`:

    uv run python benchmarks/demo.py
"""

from __future__ import annotations

import csv
import statistics
import tempfile
from importlib.metadata import version
from pathlib import Path

from puppetize import demo
from puppetize.storage.container import atomically

SEEDS = (0, 1, 2)
RESULT = Path(__file__).parent / "results" / "demo.csv"
COLUMNS = (
    "network",
    "seed",
    "original_bytes",
    "stored_bytes",
    "ratio",
    "top1_original",
    "top1_puppet",
    "change",
    "seconds",
    "versions",
    "command",
)


def main() -> None:
    rows = []
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as folder:
            result = demo.run(Path(folder), seed=seed)
        rows.append(
            [
                demo.MODEL,
                seed,
                result.report.original_bytes,
                result.report.stored_bytes,
                round(result.report.ratio, 2),
                round(result.original_top1, 2),
                round(result.puppet_top1, 2),
                round(result.puppet_top1 - result.original_top1, 2),
                round(result.seconds, 1),
            ]
        )
    means = [round(statistics.mean(column), 2) for column in list(zip(*rows, strict=True))[2:]]
    rows.append([demo.MODEL, "mean", *means])
    versions = " ".join(f"{name}={version(name)}" for name in ("puppetize", "torch", "timm"))
    command = "uv run python benchmarks/demo.py"

    def save(target: str) -> None:
        with open(target, "w", newline="", encoding="utf-8") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(COLUMNS)
            table.writerows([*row, versions, command] for row in rows)

    atomically(RESULT, save)
    print(RESULT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
