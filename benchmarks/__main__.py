"""Runs every benchmark and prints one table: `python -m benchmarks [name ...]`, one thread, CPU seconds and ratios.

Each benchmark is a module with `report() -> list[dict]`, whose rows hold `name`, `ours_cpu_s`, `reference_cpu_s`,
`ratio` and `peak_mb`; each runs in a process of its own, so that the peak memory is its own.
"""

import json
import os
import subprocess
import sys

from rich.console import Console
from rich.table import Table

BENCHMARKS = (
    "rendering",
    "recording",
    "exemplars",
    "linear",
    "similarity",
    "tally",
    "compositional",
    "simulation",
    "ablation",
    "milan",
    "circuits",
    "milan_encoder",
    "purity",
    "places",
    "visual",
    "verification",
)
COLUMNS = ("ours_cpu_s", "reference_cpu_s", "ratio", "peak_mb")


def measure(name: str) -> list[dict]:
    """The rows of one benchmark, run in a fresh single-threaded process."""
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"} if name != "rendering" else {}
    code = f"import json, benchmarks.{name} as b; print('ROWS' + json.dumps(b.report()))"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **threads}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"benchmark {name} failed:\n{done.stderr}")
    return json.loads(done.stdout.rsplit("ROWS", 1)[1])


def main() -> None:
    """Measures what the command line names, or everything."""
    table = Table("benchmark", "what", "ours, CPU s", "reference, CPU s", "ratio", "peak MB", "notes")
    for name in sys.argv[1:] or BENCHMARKS:
        for row in measure(name):
            notes = ", ".join(f"{k} {v}" for k, v in row.items() if k not in ("name", *COLUMNS))
            cells = [f"{row[k]:.3g}" if isinstance(row.get(k), float) else str(row.get(k, "")) for k in COLUMNS]
            table.add_row(name, row["name"], *cells, notes)
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
