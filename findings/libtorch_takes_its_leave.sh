#!/usr/bin/env bash
# How a process that loaded LibTorch ends.
#
# A good engineer would guess that what a process does after its last line costs nothing. Loading LibTorch registers
# thousands of operators; at the end, destructors of its static objects take each of them out of the dispatcher's tables
# again, one by one, although the tables go away with the process. `import torch` and nothing else takes a fifth longer or
# more for it; a small program in C++ or Rust, which does not have Python's modules to load, ends in about half the time
# without. `_exit` (`os._exit`), when everything is written and closed, leaves it out. Programs made of many short processes
# feel it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" --quiet --disable-pip-version-check install numpy==2.3.5 torch==2.11.0
"$folder/env/bin/python" - <<'PYTHON'
import statistics
import subprocess
import sys
import time

def took(code):
    """Seconds, the median of nine."""
    def once():
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - start
    once()
    return statistics.median(once() for _ in range(9))

import torch  # only for its version: the processes measured are others

print("torch", torch.__version__)
rows = {
    "import os": "import os",
    "import os; os._exit(0)": "import os; os._exit(0)",
    "import torch": "import os, torch",
    "import torch; os._exit(0)": "import os, torch; os._exit(0)",
}
seconds = {name: took(code) for name, code in rows.items()}
for name, s in seconds.items():
    print(f"{name:28} {s:6.3f} s")
leave = seconds["import torch"] - seconds["import torch; os._exit(0)"]
print(f"taking its leave: {leave:.3f} s, {100 * leave / seconds['import torch']:.0f} % of the process's life")
assert leave > 0.1 * seconds["import torch"]
assert leave > 5 * abs(seconds["import os"] - seconds["import os; os._exit(0)"])
PYTHON
echo "as described"
