"""Use cases: what the outside may ask for. Knows the store and the payments, no HTTP."""
