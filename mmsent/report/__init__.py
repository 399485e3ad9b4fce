"""The report of a set of runs: figures, tables, one HTML page."""
