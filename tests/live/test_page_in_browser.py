"""The page in a browser: each check of browser_page.py."""

import json

import pytest

from tests.live.browser_page import CHECKS
from tests.live.browsers import NEEDS_BROWSER, run

SECONDS = 900  # of all checks: two minutes on two idle cores

pytestmark = [pytest.mark.timeout(SECONDS + 60), *NEEDS_BROWSER]


@pytest.fixture(scope="module")
def found():
    """What was wrong, by check."""
    code, out, err = run("browser_page", seconds=SECONDS)
    assert code == 0, out + err
    return json.loads(out)


@pytest.mark.parametrize("name", CHECKS)
def test_the_page(name, found):
    assert found[name] == "", found[name]
