#!/usr/bin/env bash
# Pillow's BOX filter, which torchvision offers as `InterpolationMode.BOX`, where a picture becomes about half as large.
#
# Its documentation says that each pixel of the source image contributes to one pixel of the result with identical weights.
# Where the middle of a source row falls on the edge between two rows of the result, from 19 rows to 10 or from 2,755 to
# 1,376, that row contributes to none: whatever it holds, the result is the same. (The filter is 1 on a half-open
# interval; the rows that are looked at are rounded so that the side which would take it does not look.) Columns the
# same. A port of "Pillow's resize" that is compared with it on noise is then off by half the range of a pixel or not,
# depending on the sizes, and neither is wrong.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" --quiet --disable-pip-version-check install numpy==2.3.5 pillow==12.0.0
"$folder/env/bin/python" - <<'PYTHON'
import numpy as np, PIL
from PIL import Image

print("Pillow", PIL.__version__)

def lost(before, after, axis):
    """Rows, or columns, that the result does not depend on."""
    none = []
    for at in range(before):
        image = np.zeros((before, 4) if axis == 0 else (4, before), np.uint8)
        image[(at, slice(None)) if axis == 0 else (slice(None), at)] = 255
        size = (4, after) if axis == 0 else (after, 4)
        if not np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX)).any():
            none.append(at)
    return none

found = {}
for before, after in [(16, 8), (19, 9), (19, 10), (13, 6), (21, 10), (2755, 1376)]:
    rows, columns = lost(before, after, 0), lost(before, after, 1)
    print(f"{before} to {after}: rows without any part in the result: {rows}, columns: {columns}")
    assert rows == columns
    found[before, after] = rows
assert found == {(16, 8): [], (19, 9): [], (19, 10): [9], (13, 6): [6], (21, 10): [], (2755, 1376): [1377]}
PYTHON
echo "as described: the middle row is lost"
