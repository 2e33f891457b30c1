"""Conformance suites and fakes that ship with the product: who writes a backend runs them on it."""
