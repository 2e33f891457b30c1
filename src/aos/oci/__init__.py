"""The vocabulary of the OCI specifications as plain values; no I/O lives here."""
