"""The deterministic simulation of payments: real services, a virtual clock, faults from a seed."""
