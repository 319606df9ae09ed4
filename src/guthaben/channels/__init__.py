"""The ways on which notices leave: e-mail and signed webhooks. They know no database."""
