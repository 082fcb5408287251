"""What pip cannot give: a test that needs it skips with the reason, or fails where everything is required."""

import os
import shutil

import pytest


def program(*names: str) -> str:
    """The first of these programs that this machine has."""
    for name in names:
        if found := shutil.which(name):
            return found
    missing(f"{' or '.join(names)} is not installed")
    raise AssertionError("unreachable")


def missing(reason: str) -> None:
    """Skip; under LUNAR_TEST_REQUIRE=all, which CI sets, fail."""
    if os.environ.get("LUNAR_TEST_REQUIRE") == "all":
        pytest.fail(f"{reason}, and LUNAR_TEST_REQUIRE=all")
    pytest.skip(reason)
