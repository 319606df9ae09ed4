"""The HTTP side: a server of its own, and routers that a host mounts into its FastAPI app.

Law: it translates and lets in; every decision about credit is the engine's. It neither knows SQL
nor commits.
"""
