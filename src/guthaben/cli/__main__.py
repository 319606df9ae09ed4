"""Lets `python -m guthaben.cli` do what `guthaben` does."""

from guthaben.cli.app import main

main()
