"""The command `aos` under coverage: what the launcher does, with measuring started first.

The launcher starts Python with `-IS`, where neither PYTHON* variables nor .pth files say that coverage is wanted.
So the tests start this file instead, also with `-IS`, when COVERAGE_PROCESS_START names a configuration.
"""

import sys
from pathlib import Path

prefix = Path(sys.executable).parent.parent
site_packages = prefix / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
sys.path.insert(0, str(Path(__file__).parent.parent / "src"))
sys.path.append(str(site_packages))

import coverage  # noqa: E402

coverage.process_startup()

# Coverage brings modules that the command does without; those it must find again by itself.
from aos.cli.main import entry  # noqa: E402

entry()
