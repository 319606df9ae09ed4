"""The tests: one folder per layer, and folders for contract, properties, faults and browser."""
