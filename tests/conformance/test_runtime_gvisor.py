"""The gvisor backend passes the suite of every backend; and what a kernel of its own adds."""

from __future__ import annotations

import pytest

from aos.runtime.backends.gvisor import Runsc
from damage_cases import DamageCases
from fix_installation import requires

pytestmark = [pytest.mark.root, pytest.mark.backends]


class TestRunsc(DamageCases):
    @pytest.fixture(scope="class")
    @classmethod
    def tool(cls) -> Runsc:
        requires("runsc")
        return Runsc()
