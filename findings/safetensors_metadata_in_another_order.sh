#!/usr/bin/env bash
# safetensors.torch.save_file: the same tensors and the same metadata give other bytes in every process.
#
# The format is made for weights that are hashed, cached and compared, its tensors are put into one order whatever the dict's,
# and within one process two files are often alike, so a good engineer would guess that a checkpoint saved twice has one
# checksum. The metadata go through a hash map with a random seed instead: with two entries or more their order in the header
# differs from process to process (and, seldom, within one). transformers writes one entry and is safe; who keeps a graph, class
# names and a configuration there gets a new checksum for the same network each time. Tensors and values are right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" --quiet --disable-pip-version-check install numpy==2.3.5 safetensors==0.8.0
cat > "$folder/save.py" <<'PYTHON'
import hashlib
import sys

import numpy as np
from safetensors.numpy import load, save

entries = int(sys.argv[1])
data = save({"weight": np.zeros(4, np.float32)}, {f"key{i}": "value" for i in range(entries)})
assert (load(data)["weight"] == 0).all()
print(hashlib.sha256(data).hexdigest()[:16])
PYTHON
echo "safetensors $("$folder/env/bin/python" -c 'import safetensors; print(safetensors.__version__)')"
for entries in 1 6; do
    found=$(for _ in 1 2 3 4 5 6 7 8; do "$folder/env/bin/python" "$folder/save.py" "$entries"; done | sort -u | wc -l)
    echo "8 processes, $entries entries of metadata: $found different files"
    if [ "$entries" = 1 ]; then [ "$found" = 1 ]; else [ "$found" -gt 1 ]; fi
done
echo "as described"
