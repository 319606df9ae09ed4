"""Measurements of speed, each beside a floor of the same run; results are kept in `results`."""
