#!/usr/bin/env bash
# OpenCV 5.0.0.93 and 4.10.0.84: intersectConvexConvex has a tolerance of a fixed size, in the units of its input.
#
# Expected: the area that two convex polygons have in common, whatever the unit: that of two nearly equal unit squares
#   is nearly 1.
# Seen: of 1,000 pairs of unit squares whose corners differ by at most 0.00001, two thirds get another area, often
#   0 or a half. The same pairs, multiplied by 100, all get nearly 10,000. So coordinates that were normalized to 0..1
#   lose the common part, without an error.
# Exits with 1 if this changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/areas.py" <<'PY'
import cv2
import numpy as np

SQUARE = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float64)


def num_wrong(factor):
    """Returns how many of 1,000 pairs get an area that is wrong by more than a hundredth."""
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(1000):
        other = SQUARE + rng.uniform(-1e-5, 1e-5, (4, 2))
        area, _ = cv2.intersectConvexConvex((SQUARE * factor).astype(np.float32), (other * factor).astype(np.float32))
        wrong += abs(area / factor**2 - 1) > 0.01
    return wrong


print(num_wrong(1), num_wrong(100))
PY
for version in 4.10.0.84 5.0.0.93; do
  python3 -m venv "$folder/$version"
  "$folder/$version/bin/pip" install --quiet --disable-pip-version-check "opencv-python-headless==$version" 'numpy==2.2.6'
  read -r small large < <("$folder/$version/bin/python" "$folder/areas.py")
  echo "OpenCV $version: wrong areas of 1,000: $small of unit squares, $large of the same squares times 100"
  [ "$small" -gt 300 ] && [ "$large" = 0 ]
done
