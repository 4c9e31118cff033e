# SPDX-License-Identifier: Apache-2.0
"""What the tests of lazy layers share."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from support import kernel, lazy  # noqa: E402


@pytest.fixture(scope="module", params=lazy.PRESENTERS)
def presenter(request):
    """Each test runs with each presenter."""
    if request.param == "erofs" and (missing := kernel.lacks_for_erofs()):
        pytest.skip(f"kernel lacks {missing}")
    return request.param
