"""Host and release, whichever way a trace names its kernel."""

from __future__ import annotations

import pytest

from apftrace import uname


@pytest.mark.parametrize(
    ("kernel", "node", "release"),
    [
        ("Linux buildhost 6.12.0-amd64 x86_64", "buildhost", "6.12.0-amd64"),
        ("Linux buildhost 6.12.0", "buildhost", "6.12.0"),
        # A host's name may begin with a digit, or be an address.
        ("Linux 1and1 6.12.0 x86_64", "1and1", "6.12.0"),
        ("Linux 10.0.0.7 6.12.0 x86_64", "10.0.0.7", "6.12.0"),
        ("Linux  buildhost  6.12.0", "buildhost", "6.12.0"),
        ("Linux buildhost custom x86_64", "buildhost", None),
        ("Linux 6.1.0 x86_64", None, "6.1.0"),
        ("6.12.0-amd64", None, "6.12.0-amd64"),
        ("Linux", None, None),
        ("", None, None),
        (None, None, None),
    ],
)
def test_host_and_release(kernel, node, release):
    assert (uname.node(kernel), uname.release(kernel)) == (node, release)
