"""Tests of prices, usages and bounds as services."""
