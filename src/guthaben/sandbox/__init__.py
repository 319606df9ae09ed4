"""A stand-in for Stripe that speaks real HTTP, for the demo, for tests and for faults.

Owns its own process, its own SQLite file and its own words for Stripe's objects. It knows nothing
of the engine and imports nothing else of the package. It is no copy of Stripe: what it doesn't
know it refuses (404, `parameter_unknown`) instead of guessing.
"""
