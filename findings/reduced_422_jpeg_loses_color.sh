#!/usr/bin/env bash
# libjpeg-turbo 3.1 in Pillow 13.0.0 and simplejpeg 1.9.0: a 4:2:2 JPEG that the decoder reduces has less color than a
# 4:2:0 JPEG of the same picture, although it stores twice as much.
#
# Expected: 4:2:2 halves the color samples in one direction and 4:2:0 in both, so at any size the colors of a decoded
#   4:2:2 file are at least as fine.
# Seen: at full size they are. Reduced to a half while decoding, the 4:2:0 file keeps the stripes of color that the
#   4:2:2 file loses: the decoder reduces color samples by less only where they are coarser in both directions. Where
#   they are coarser in one, it reduces them in both by the whole factor, so that they are a quarter of the width.
# Exits with 1 if this changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: pillow==13.0.0 simplejpeg==1.9.0 \
  numpy==2.4.6 2> /dev/null
cat > "$folder/stripes.py" <<'PY'
import io

import numpy as np
import simplejpeg
from PIL import Image

SIZE = 256
stripes = np.zeros((SIZE, SIZE, 3), np.uint8)
stripes[:] = (128, 128, 90)
stripes[:, np.arange(SIZE) // 2 % 2 == 0] = (128, 128, 170)  # Y, Cb, Cr: columns of 2 px, of equal lightness
image = Image.fromarray(stripes, "YCbCr").convert("RGB")


def contrast(pixels):
    """The mean step of Cr between columns, of which the stripes have 80 levels."""
    red = np.asarray(Image.fromarray(pixels).convert("YCbCr"), float)[:, :, 2]
    return round(float(np.ptp(red, axis=1).mean()))


print("result", end="")
for subsampling in ("4:2:0", "4:2:2"):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=98, subsampling=subsampling)
    data = file.getvalue()
    half = Image.open(io.BytesIO(data))
    half.draft("RGB", (SIZE // 2, SIZE // 2))
    assert half.size == (SIZE // 2, SIZE // 2)
    other = simplejpeg.decode_jpeg(data, min_height=SIZE // 2, min_width=SIZE // 2)
    assert other.shape == (SIZE // 2, SIZE // 2, 3)
    full = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    print("", contrast(full), contrast(np.asarray(half)), contrast(other), end="")
print()
PY
read -r _ full420 half420 other420 full422 half422 other422 < <("$folder/venv/bin/python" -W ignore "$folder/stripes.py")
echo "contrast of stripes of color, 2 px wide (80 levels): 4:2:0 at full size $full420, reduced to a half $half420" \
  "(Pillow) and $other420 (simplejpeg); 4:2:2 at full size $full422, reduced to a half $half422 and $other422"
[ "$full422" -ge "$((full420 - 10))" ] && [ "$half420" -ge 40 ] && [ "$other420" -ge 40 ] \
  && [ "$half422" -le 10 ] && [ "$other422" -le 10 ]
