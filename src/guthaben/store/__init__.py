"""SQL and transactions. Knows the domain and nothing above it; commits happen only here."""
