"""A model of Stripe, over real HTTP or inside a process, for the demo, for tests and for faults.

Owns its own SQLite file and its own words for Stripe's objects. It knows nothing of the engine and
imports nothing else of the package. It is no copy of Stripe: what it doesn't know it refuses (404,
`parameter_unknown`) instead of guessing. docs/sandbox.md says what it covers and where it differs.
"""
