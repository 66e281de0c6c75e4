#!/usr/bin/env bash
# NumPy 2.4.6 with its OpenBLAS 0.3.31: equal rows of a matrix get different products, depending on their position.
#
# Expected: 999 copies of one vector, times one matrix, give 999 equal rows of products.
# Seen: with the Haswell kernels (used on every x86-64 processor with AVX2 and without AVX-512) they do not, because
#   full tiles of rows and the remaining rows are added up in different orders. With the Nehalem kernels they are
#   equal. So if vectors are equal, sorting by similarity does not keep the order of the rows, and the order depends on
#   the processor.
# Needs x86-64 with AVX2. Exits with 1 if this changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6
cat > "$folder/products.py" <<'PY'
import numpy as np

rng = np.random.default_rng(0)
row = rng.normal(size=256)
copies = np.repeat((row / np.linalg.norm(row)).astype(np.float32)[None], 999, axis=0)
queries = rng.normal(size=(256, 40)).astype(np.float32)
products = copies @ queries
print(len(np.unique(products, axis=0)))
PY
haswell=$(OPENBLAS_CORETYPE=Haswell OPENBLAS_NUM_THREADS=1 "$folder/venv/bin/python" "$folder/products.py")
nehalem=$(OPENBLAS_CORETYPE=Nehalem OPENBLAS_NUM_THREADS=1 "$folder/venv/bin/python" "$folder/products.py")
echo "NumPy 2.4.6: different rows of products among 999 equal ones: Haswell $haswell, Nehalem $nehalem"
[ "$haswell" -gt 1 ] && [ "$nehalem" = 1 ]
