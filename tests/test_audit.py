"""`make audit` passes for packages that were looked at, and for no others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import audit

# As pip-audit: FOUND says what it answers for requests 2.19.0, OTHERS for all others.
FAKE = """
import json, os, sys
words = open(sys.argv[sys.argv.index("--requirement") + 1]).read().split()
answers = []
for word in words:
    name, version = word.split("==")
    found = os.environ["FOUND" if word == "requests==2.19.0" else "OTHERS"]
    row = {"name": name, "version": version}
    if found == "error":
        sys.exit("requests.exceptions.ConnectionError: no route")
    answers.append(row | ({"skip_reason": "Dependency not found on PyPI"} if found == "unknown" else
                          {"vulns": [{"id": "PYSEC-1"}] if found == "hole" else []}))
print(json.dumps({"dependencies": answers, "fixes": []}))
print("No known vulnerabilities found", file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("found", "others", "status", "sentence"),
    [
        ("hole", "none", 0, "packages audited, 0 known holes"),
        ("unknown", "unknown", 1, "nothing was audited: the known holes of requests==2.19.0 are not found (Dependency"),
        ("none", "none", 1, "nothing was audited"),
        ("error", "none", 1, "gives no answer: requests.exceptions.ConnectionError: no route"),
        ("hole", "hole", 1, "has the known hole PYSEC-1"),
        ("hole", "unknown", 1, "which were not audited: "),
    ],
)
def test_who_was_not_asked_about_is_not_passed(
    tmp_path: Path, found: str, others: str, status: int, sentence: str
) -> None:
    (tmp_path / "pip_audit.py").write_text(FAKE)
    env = os.environ | {"PYTHONPATH": str(tmp_path), "FOUND": found, "OTHERS": others}
    command = [sys.executable, str(Path(audit.__file__))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == status and sentence in done.stdout + done.stderr, done
