"""The four modules: their contract in this project's own words."""
