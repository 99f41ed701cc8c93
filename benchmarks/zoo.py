"""Claim: every CNN of timm and torchvision can be puppetized, or a row says why not.

Sweeps both zoos, structure only (nothing is trained and no accuracy is measured), and writes the
tables, a summary, plots and a page to `benchmarks/results/zoo/`, and the README's section on
coverage:

    uv run python benchmarks/zoo.py

The journal lies in `zoo-sweep/`: a sweep that was interrupted goes on where it stopped. To write
everything again from the tables, without a sweep:

    uv run python benchmarks/zoo.py --rebuild
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from rich.console import Console

import zoo_adapters
from puppetize.sweep import ConsoleProgress, Limits, LocalEngine, Settings, cores, sweep
from puppetize.sweep.read_table import read_table
from puppetize.sweep.results import update_coverage, write_results

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "zoo"
JOURNAL = ROOT / "zoo-sweep"
ZOOS = ("timm", "torchvision")
COMMAND = "uv run python benchmarks/zoo.py"


def measure(jobs: int) -> None:
    """Sweep both zoos and put their tables among the results."""
    names = [name for zoo in ZOOS for name in zoo_adapters.list_models(f"{zoo}/*")]
    with ConsoleProgress(Console()) as progress:
        sweep(names, JOURNAL, Settings(), LocalEngine(Limits(jobs=jobs)), progress=progress)
    RESULTS.mkdir(parents=True, exist_ok=True)
    for zoo in ZOOS:
        shutil.copyfile(JOURNAL / f"{zoo}.csv", RESULTS / f"{zoo}.csv")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rebuild", action="store_true", help="only from the tables")
    parser.add_argument("--jobs", type=int, default=cores(), help="models at a time")
    arguments = parser.parse_args()
    if not arguments.rebuild:
        measure(arguments.jobs)
    rows = [row for zoo in ZOOS for row in read_table(RESULTS / f"{zoo}.csv")]
    for path in write_results(rows, RESULTS, COMMAND):
        print(path.relative_to(ROOT))
    results = RESULTS.relative_to(ROOT).as_posix()
    update_coverage(ROOT / "README.md", rows, COMMAND, results)


if __name__ == "__main__":
    main()
