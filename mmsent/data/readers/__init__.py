"""Readers: each makes posts of one form of data set, as people have it."""
