"""Asks PyPI for known holes in what is installed, and says so where it could not ask: `make audit`.

pip-audit says "No known vulnerabilities found" of packages that it could not ask about, also where these are all.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

_KNOWN = "requests==2.19.0"  # has holes, published in 2018 to 2024: whoever finds none has not looked
_OWN = "knet"


def installed() -> list[str]:
    """What is installed, as name==version; a local part of a version, such as +cpu, is of no interest to PyPI."""
    found = {d.metadata["Name"].lower(): d.version.partition("+")[0] for d in distributions()}
    return sorted(f"{name}=={version}" for name, version in found.items() if name != _OWN)


def ask(packages: list[str]) -> list[dict[str, Any]]:
    """What pip-audit answers for each package; SystemExit with its last line if it does not answer."""
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "packages.txt"
        listed.write_text("\n".join(packages))
        options = ["--no-deps", "--disable-pip", "--progress-spinner", "off", "--format", "json"]
        command = [sys.executable, "-m", "pip_audit", "--requirement", str(listed), *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        return list(json.loads(done.stdout)["dependencies"])
    except (ValueError, KeyError, TypeError):
        reason = next(iter(reversed(done.stderr.strip().splitlines())), f"status {done.returncode}")
        sys.exit(f"audit: nothing was audited, pip-audit gives no answer: {reason}")


def main() -> int:
    """0: each package was asked about and none has a known hole. 1: some have, or were not asked about."""
    answers = ask([_KNOWN])
    if not any(answer.get("vulns") for answer in answers):
        reason = next((answer["skip_reason"] for answer in answers if "skip_reason" in answer), "it answers with none")
        sys.exit(f"audit: nothing was audited: the known holes of {_KNOWN} are not found ({reason}).")
    packages = installed()
    answers = ask(packages)
    holes = [(answer["name"], hole["id"]) for answer in answers for hole in answer.get("vulns", ())]
    unknown = {package.partition("==")[0] for package in packages}
    unknown -= {answer["name"].lower() for answer in answers if "vulns" in answer}
    for name, hole in holes:
        print(f"audit: {name} has the known hole {hole}")
    if unknown:
        print(f"audit: PyPI does not know these, which were not audited: {', '.join(sorted(unknown))}")
    print(f"audit: {len(packages) - len(unknown)} of {len(packages)} packages audited, {len(holes)} known holes")
    return 1 if holes or unknown else 0


if __name__ == "__main__":
    sys.exit(main())
