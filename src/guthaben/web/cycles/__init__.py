"""The Cycles protocol under `/cycles`: its published clients work by changing their base URL."""
