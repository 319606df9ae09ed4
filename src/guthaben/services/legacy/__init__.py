"""What the four modules need beside the engine: plans, settings, events, ways in."""
