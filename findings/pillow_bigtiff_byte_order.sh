#!/usr/bin/env bash
# Pillow 13.0.0: a big-endian BigTIFF is "missing dimensions".
#
# Expected: BigTIFF is read in either byte order: the number 43 after MM is 00 2B, after II 2B 00.
# Seen: Pillow compares the third byte with 43, so only little-endian files count as BigTIFF. Of the others it reads
#   the offset of the first directory in the wrong place, and Image.open raises UnidentifiedImageError. libtiff's and
#   tifffile's own readers take both.
# Exits with 1 if this changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pillow==13.0.0 tifffile==2026.3.3 numpy==2.4.6
cat > "$folder/read.py" <<'PY'
import io
import sys

import numpy as np
import tifffile
from PIL import Image, UnidentifiedImageError

pixels = np.arange(48 * 64 * 3, dtype=np.uint8).reshape(48, 64, 3)
found = {}
for order in "<>":
    for big in (False, True):
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, pixels, photometric="rgb", metadata=None, byteorder=order, bigtiff=big)
        assert np.array_equal(tifffile.imread(io.BytesIO(buffer.getvalue())), pixels)
        try:
            found[order, big] = np.array_equal(np.asarray(Image.open(buffer)), pixels)
        except UnidentifiedImageError:
            found[order, big] = None
        print("big-endian" if order == ">" else "little-endian", "BigTIFF" if big else "TIFF", found[order, big])
sys.exit(found != {("<", False): True, ("<", True): True, (">", False): True, (">", True): None})
PY
"$folder/venv/bin/python" "$folder/read.py"
