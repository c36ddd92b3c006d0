"""Fail unless a wheel holds what it must and nothing else: ``python look_into_wheel.py X.whl``."""

from __future__ import annotations

import sys
import zipfile

PACKAGES = {"apftrace", "apftrace_parsers", "apftrace_reports"}
COMPILED = (
    "apftrace_parsers/gather",
    "apftrace_parsers/lanes",
    "apftrace_parsers/rowwriter",
    "apftrace_parsers/stamps",
    "apftrace_parsers/subbuf",
    "apftrace/unmerge",
    "apftrace/model/asleep",
    "apftrace/model/breaks",
    "apftrace/model/faults",
    "apftrace/model/ledger",
    "apftrace/model/odometer",
    "apftrace/model/threads",
    "apftrace/model/waiting",
)


def complaints(names: list[str]) -> list[str]:
    """Return what is wrong with the names in a wheel."""
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    found = [f"unexpected top level {top}" for top in sorted(tops - PACKAGES)]
    found += [f"no package {package}" for package in sorted(PACKAGES - tops)]
    found += [
        f"no py.typed in {package}" for package in sorted(PACKAGES) if f"{package}/py.typed" not in names
    ]
    for module in COMPILED:
        found += [f"no {module}{suffix}" for suffix in (".py", ".pxd") if module + suffix not in names]
        if not any(name.startswith(module + ".") and name.endswith(".so") for name in names):
            found.append(f"{module} is not compiled")
    if not any(name.startswith("apftrace_reports/templates/") for name in names):
        found.append("no templates")
    if "apftrace_reports/apftrace-report.schema.json" not in names:
        found.append("no JSON schema")
    if not any(name.endswith("/licenses/LICENSE") for name in names):
        found.append("no LICENSE")
    found += [f"{name} has no place in a wheel" for name in names if name.endswith((".c", ".pyx", ".dat"))]
    return found


if __name__ == "__main__":
    with zipfile.ZipFile(sys.argv[1]) as wheel:
        problems = complaints(wheel.namelist())
    for problem in problems:
        print(f"{sys.argv[1]}: {problem}")
    sys.exit(bool(problems))
