#!/usr/bin/env bash
# Runs the lines of simimg/docs/clients.md with the programs themselves: tests/clients.sh [GROUP...]
#
# Each group gets a virtual environment in a temporary folder, which is removed before the next one is made: up to 6 GB.
# The releases are those that the table of the document names. big_vision is no package: BIG_VISION=FOLDER, a clone of its
# repository, adds it to the group `tensorflow`. The interpreter that runs this, PYTHON, makes the datasets.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python}

packages() {
    case $1 in
    tensorflow) echo tensorflow==2.21.0 tensorflow-datasets==4.9.10 keras==3.15.1 keras-hub==0.32.0 seqio==0.0.20 \
        jax==0.10.2 grain==0.2.18 array_record==0.8.6 flax overrides einops ml_collections pyarrow pillow ;;
    torch) echo torch==2.14.1 torchvision==0.29.1 timm==1.0.31 tfrecord==1.14.6 tensorflow==2.21.0 \
        tensorflow-datasets==4.9.10 pyarrow pillow ;;
    tables) echo duckdb==2.0.1 polars==2.1.0 pandas==3.1.1 datasets==5.2.0 datafusion==55.0.0 chdb==4.4.0 \
        "dask[dataframe]==2026.8.0" daft==0.7.26 numpy pillow pyarrow ;;
    records) echo tfd-utils==1.3.0 pillow ;;
    beam) echo "apache-beam[tfrecord]==2.77.0" tensorflow==2.21.0 ;;
    ray) echo "ray[data]==2.60.0" crc32c tensorflow==2.21.0 ;;
    dali) echo nvidia-dali-cuda120==2.4.0 ;;
    official) echo tf-models-official==2.20.0 ;;
    # The other releases keep pip from trying hundreds of combinations.
    validation) echo tensorflow-data-validation==1.16.1 tensorflow==2.16.2 tensorflow-serving-api==2.16.1 \
        tfx-bsl==1.16.1 tensorflow-metadata==1.16.1 apache-beam==2.61.0 protobuf==4.25.8 pyarrow==10.0.1 \
        pandas==1.5.3 numpy==1.26.4 "setuptools<80" ;;
    *) echo "no group $1" >&2; return 1 ;;
    esac
}

[ $# -gt 0 ] || set -- tensorflow torch tables records beam ray dali official validation
failed=0
for group in "$@"; do
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    python3 -m venv "$folder/venv"
    # shellcheck disable=SC2046
    "$folder/venv/bin/pip" install --quiet --no-cache-dir --disable-pip-version-check $(packages "$group")
    more=$([ "$group" = tensorflow ] && echo "${BIG_VISION:-}" || true)
    echo "== $group: $("$folder/venv/bin/python" --version)"
    SIMIMG_CLIENTS_PYTHON=$folder/venv/bin/python PYTHONPATH="$PWD:$more" HF_HOME="$folder/cache" \
        "$python" -m pytest -q -n0 -rA tests/test_clients.py || failed=1
    rm -rf "$folder"
done
exit $failed
