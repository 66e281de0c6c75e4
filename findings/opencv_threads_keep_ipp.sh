#!/usr/bin/env bash
# OpenCV 5.0.0.93: after cv2.setUseOptimized(False), OpenCV's own threads still use Intel's IPP.
#
# Expected: with optimized code switched off, SIFT gives the same keypoints for any number of threads.
# Seen: the switch turns IPP off in the calling thread only, because each thread has its own flag for IPP. So with two
#   threads, a part of the blurred images comes from IPP and a part does not. Keypoints with one thread and with two differ. With IPP
#   switched off for the whole process (OPENCV_IPP=disabled), or with cv2.setNumThreads(1), they are the same.
# Needs x86-64: the wheels for arm64 have no IPP. Exits with 1 if this changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check opencv-python-headless==5.0.0.93 numpy==2.4.6
cat > "$folder/keypoints.py" <<'PY'
import hashlib
import sys

import cv2
import numpy as np

cv2.setUseOptimized(False)
cv2.setNumThreads(int(sys.argv[1]))
digest = hashlib.sha256()
for seed in range(6):
    coarse = np.random.default_rng(seed).integers(0, 256, (40, 52), np.uint8)
    image = cv2.GaussianBlur(cv2.resize(coarse, (416, 320), interpolation=cv2.INTER_NEAREST), (0, 0), 1.0)
    keypoints, descriptors = cv2.SIFT_create().detectAndCompute(image, None)
    assert len(keypoints) > 100
    digest.update(np.array([(*point.pt, point.response) for point in keypoints], np.float32).tobytes())
    digest.update(descriptors.tobytes())
print(digest.hexdigest()[:16])
PY
python="$folder/venv/bin/python"
one=$("$python" "$folder/keypoints.py" 1)
two=$("$python" "$folder/keypoints.py" 2)
one_without=$(OPENCV_IPP=disabled "$python" "$folder/keypoints.py" 1 2> /dev/null)
two_without=$(OPENCV_IPP=disabled "$python" "$folder/keypoints.py" 2 2> /dev/null)
echo "OpenCV 5.0.0.93, optimized code off: 1 thread $one, 2 threads $two; without IPP: $one_without, $two_without"
[ "$one" != "$two" ] && [ "$one" = "$one_without" ] && [ "$one_without" = "$two_without" ]
