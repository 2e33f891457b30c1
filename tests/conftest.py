"""What every test may use; the fixtures live in fix_*.py, one concept each."""

from __future__ import annotations

from fix_installation import aos, busybox_root, installation

__all__ = ["aos", "busybox_root", "installation"]
