"""Fresh ids: 12 hexadecimal digits that do not repeat."""

from __future__ import annotations

import re

from aos.ids import RandomIds


def test_ids_have_their_form_and_do_not_repeat() -> None:
    ids = RandomIds()
    drawn = [ids.fresh() for _ in range(10_000)]
    assert all(re.fullmatch("[0-9a-f]{12}", one) for one in drawn)
    assert len(set(drawn)) == len(drawn)
