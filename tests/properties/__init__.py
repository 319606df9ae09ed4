"""Random commands, and an independent model of one practice that says what they must do."""
