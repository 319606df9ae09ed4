"""The rules of credit, pure: no clock, no I/O, no SQL, no randomness. See docs/rules.md."""
