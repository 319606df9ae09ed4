"""Programs for those who work on Guthaben; nothing here is installed with it."""
