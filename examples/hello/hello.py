"""The smallest agent: greets whom it is told to, and says where it runs."""

import platform
import sys

print(f"Hello, {' '.join(sys.argv[1:])}! This is Python {platform.python_version()} on {platform.node()}.")
