"""The command line `guthaben`: run the server, look after practices, keys and credit.

Law: it only asks the services and says what they said. Amounts are decimal strings in USD. Exit
codes are for scripts: 0 done, 1 refused or problems found, 2 wrong usage, 3 the store is
unavailable, 4 a setting stands in the way, 130 interrupted.
"""

from guthaben.cli.app import main

__all__ = ["main"]
