#!/usr/bin/env bash
# Pillow 13.0.0: compressed big-endian TIFFs of signed integers and floating point are read with their bytes swapped.
#
# Expected: a TIFF gives the same values in either byte order, compressed or not.
# Seen: uncompressed big-endian values are right, and so are little-endian ones. With deflate, libtiff has already
#   swapped the bytes to the order of the machine, and Pillow swaps them again: 1000 becomes -402456576, and 1000.0
#   becomes about 4e-41. There is no error and no warning. Samples of unsigned 16 bits are right.
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

wrong = []
for dtype in ("int32", "float32", "int16", "uint16"):
    values = (np.arange(64 * 48).reshape(48, 64) + 1000).astype(dtype)
    for order in "<>":
        for compression in (None, "zlib"):
            buffer = io.BytesIO()
            options = {"photometric": "minisblack", "metadata": None, "byteorder": order, "compression": compression}
            tifffile.imwrite(buffer, values, **options)
            assert np.array_equal(tifffile.imread(io.BytesIO(buffer.getvalue())), values)
            found = np.asarray(Image.open(buffer))
            right = np.array_equal(found, values)
            print(dtype, order, compression or "uncompressed", "right" if right else f"wrong: {found[0, 0]} for 1000")
            if not right:
                wrong.append((dtype, order, compression))
sys.exit(wrong != [("int32", ">", "zlib"), ("float32", ">", "zlib"), ("int16", ">", "zlib")])
PY
"$folder/venv/bin/python" "$folder/read.py"
