#!/usr/bin/env bash
# pytest 9.2.0: a skipped test's report that was written as JSON and read again breaks the summary of the whole run.
#
# Expected: `pytest_report_to_serializable` gives data "that can be JSON-serialized", and
#   `pytest_report_from_serializable` gives the report back, so that reports of another process can be replayed.
# Seen: the reason of a skip is a tuple (file, line, reason). JSON makes a list of it, nothing turns it back, and at the
#   end the summary fails with AssertionError, so that the exit code is 1 although no test failed. Passed and failed
#   tests survive. A replayed report needs `report.longrepr = tuple(report.longrepr)`.
# Exits with 1 if this changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pytest==9.2.0
cat > "$folder/conftest.py" <<'PY'
import json
import os

import pytest


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    hook, config = item.config.hook, item.config
    data = json.loads(json.dumps(hook.pytest_report_to_serializable(config=config, report=outcome.get_result())))
    report = hook.pytest_report_from_serializable(config=config, data=data)
    if "MENDED" in os.environ and isinstance(report.longrepr, list):
        report.longrepr = tuple(report.longrepr)
    outcome.force_result(report)
PY
printf 'def test_passes():\n    pass\n' > "$folder/test_passes.py"
printf 'import pytest\n\n\n@pytest.mark.skip(reason="not here")\ndef test_skipped():\n    pass\n' > "$folder/test_skipped.py"
cd "$folder"
code() { env "$@" > out 2>&1 && echo 0 || echo $?; }
passes=$(code venv/bin/python -m pytest -rs test_passes.py)
skipped=$(code venv/bin/python -m pytest -rs test_skipped.py)
seen=$(grep -c 'AssertionError' out || true)
mended=$(code MENDED=1 venv/bin/python -m pytest -rs test_skipped.py)
echo "pytest 9.2.0: exit code $passes with a passed test, $skipped with a skipped one ($seen lines with AssertionError), $mended if the tuple is restored"
[ "$passes" = 0 ] && [ "$skipped" != 0 ] && [ "$seen" != 0 ] && [ "$mended" = 0 ]
