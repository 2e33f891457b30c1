"""OpenOS (AOS): an operating system for AI agents.

Nothing is imported here, so that `import aos` costs nothing on the path of `aos ps`.
"""

__version__ = "0.1.0"
