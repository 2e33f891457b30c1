"""The composition root: the one place that names which implementation stands behind each protocol.

Every function imports what it composes when it is called, so that a verb pays only for what it uses.
"""
