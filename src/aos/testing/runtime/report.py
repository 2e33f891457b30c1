"""At the end of a run of pytest: which cases applied to which backend, and which did not and why.

from aos.testing.runtime.report import pytest_terminal_summary      # in conftest.py
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

__all__ = ["pytest_terminal_summary"]

_WHY = re.compile(r"not applicable: (\S+) does not declare (.+)")


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    reasons: defaultdict[str, Counter[str]] = defaultdict(Counter)
    backends: dict[str, str] = {}
    for report in terminalreporter.getreports("skipped"):
        found = _WHY.search(report.longrepr[2]) if isinstance(report.longrepr, tuple) else None
        if found is not None:
            suite = report.nodeid.rpartition("::")[0]
            backends[suite] = found[1]
            reasons[suite][found[2]] += 1
    passed = Counter(report.nodeid.rpartition("::")[0] for report in terminalreporter.getreports("passed"))
    if reasons:
        terminalreporter.section("conformance of runtimes")
    for suite, missing in reasons.items():
        terminalreporter.line(
            f"{suite} ({backends[suite]}): {passed[suite]} passed, {missing.total()} not applicable"
        )
        for capability, number in missing.most_common():
            terminalreporter.line(
                f"    {number:3}  need {capability}, which {backends[suite]} does not declare"
            )
