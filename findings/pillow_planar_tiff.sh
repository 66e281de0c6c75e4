#!/usr/bin/env bash
# Pillow 13.0.0: an uncompressed 16-bit RGB TIFF in separate planes is read as another picture.
#
# Expected: the upper eight bits of each sample, as for the same file with deflate, or with chunky samples.
# Seen: each byte of a plane is taken for a sample, so a picture that is 64 wide has at (40, 20) what should be at
#   (20, 10). There is no error and no warning.
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
from PIL import Image

y, x = np.mgrid[:48, :64]
pixels = np.stack([4 * x, 5 * y, 255 - 2 * x - 2 * y], axis=-1).astype(np.uint8)
deep = pixels.astype(np.uint16) * 257
found = {}
for name, planes, compression in (
    ("chunky", "contig", None),
    ("planes, deflate", "separate", "zlib"),
    ("planes", "separate", None),
):
    buffer = io.BytesIO()
    values = deep if planes == "contig" else np.moveaxis(deep, -1, 0)
    options = {"photometric": "rgb", "planarconfig": planes, "compression": compression, "metadata": None}
    tifffile.imwrite(buffer, values, **options)
    assert np.array_equal(tifffile.imread(io.BytesIO(buffer.getvalue())), values)
    difference = np.abs(np.asarray(Image.open(buffer).convert("RGB")).astype(int) - pixels)
    found[name] = int(difference.max())
    print(f"{name}: largest difference {found[name]}, mean {difference.mean():.1f}")
sys.exit(not (found["chunky"] == found["planes, deflate"] == 0 and found["planes"] > 100))
PY
"$folder/venv/bin/python" "$folder/read.py"
