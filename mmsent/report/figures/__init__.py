"""Figures: one function each, arrays in, a matplotlib Figure out; nothing here reads caches or runs.

style.py holds what they share: fonts with CJK and emoji, colours that mean the same class everywhere, saving.
"""
