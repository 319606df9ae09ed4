"""The older application's tables: views on the engine's, and the take-over of old rows."""
