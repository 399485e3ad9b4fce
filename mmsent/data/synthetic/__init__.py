"""A small data set that is drawn by the program, for the quickstart, the examples and the tests."""
