#!/usr/bin/env bash
# Pillow 13.0.0, the wheel for Linux with glibc: it says that it has zlib-ng, and reads and writes PNG with the zlib of
# the system.
#
# Expected: where `PIL.features.check_feature("zlib_ng")` is True, and a version of zlib-ng is given, PNG files are
#   inflated by zlib-ng.
# Seen: the wheel was compiled with the headers of zlib-ng 2.3.3 and contains no zlib at all, because repaired wheels may
#   take libz.so.1 from the system. The library that is loaded for a PNG is the system's (or the one that Python brings),
#   and `features.version("zlib")` is that library's. So the time for a PNG depends on the distribution, not on Pillow.
# Exits with 1 if this changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: pillow==13.0.0 2> /dev/null
cat > "$folder/png.py" <<'PY'
import io
import pathlib

import PIL
from PIL import Image, features

file = io.BytesIO()
Image.linear_gradient("L").save(file, "PNG")
Image.open(file).load()
wheel = pathlib.Path(PIL.__file__).parents[1]
mapped = {line.split()[-1] for line in open("/proc/self/maps")}
libraries = {path for path in mapped if pathlib.Path(path).name.startswith(("libz.", "libz-"))}
in_wheel = sorted(path for path in libraries if path.startswith(str(wheel)))
# What the wheel has of its own names itself in its code.
code = b"".join(path.read_bytes() for path in wheel.glob("pillow.libs/*")) + pathlib.Path(Image.core.__file__).read_bytes()
print("result", features.check_feature("zlib_ng"), features.version_feature("zlib_ng"), features.version("zlib"),
      len(libraries), len(in_wheel), b"inflate 1." in code or b"zlib-ng 2" in code)
PY
read -r _ says ng zlib loaded in_wheel contains < <("$folder/venv/bin/python" "$folder/png.py")
echo "Pillow 13.0.0: has zlib-ng: $says ($ng); the zlib that is used: $zlib; libraries of zlib loaded: $loaded, of them" \
  "from the wheel: $in_wheel; the wheel has an inflate of its own: $contains"
[ "$says" = True ] && [ "$loaded" -ge 1 ] && [ "$in_wheel" = 0 ] && [ "$contains" = False ]
