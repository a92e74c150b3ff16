"""Wall time, processor time and peak memory of the commands that people wait for.

    python benchmarks/cost.py --out benchmarks/results/cost.json [--pytest]

Targets on 2 cores: `rotcheck run` under 25 s and 1 GB with everything imported, the tests under 6 minutes, and
`import rotcheck` under 20 ms. Each command runs in a process of its own; of the quick ones the median of several.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from rotcheck.report import environment

IMPORT = "import time; s = time.perf_counter(); import rotcheck; print(time.perf_counter() - s)"
RUN = "from rotcheck.cli import main; main()"


def measure(command: list[str]) -> dict[str, float]:
    """Seconds and peak memory of one child process; the exit status must be 0."""
    start = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.perf_counter() - start
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"{' '.join(command)} exited with {os.waitstatus_to_exitcode(status)}")
    return {"wall_s": wall, "cpu_s": usage.ru_utime + usage.ru_stime, "peak_mb": usage.ru_maxrss / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--pytest", action="store_true", help="also the test suite, which takes minutes")
    args = parser.parse_args()

    imports = [float(subprocess.check_output([sys.executable, "-c", IMPORT])) for _ in range(args.repeats)]
    runs = [measure([sys.executable, "-c", RUN, "run"]) for _ in range(args.repeats)]
    everything = measure([sys.executable, "-c", RUN, "run", "--all"])
    result = {
        "import_rotcheck_s": statistics.median(imports),
        "rotcheck_run": {key: statistics.median(run[key] for run in runs) for key in runs[0]},
        "rotcheck_run_all": everything,
        "repeats": args.repeats,
        "load_average_before": os.getloadavg()[0],
        "environment": environment(),
    }
    if args.pytest:
        result["pytest"] = measure([sys.executable, "-m", "pytest", "-q"])
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
