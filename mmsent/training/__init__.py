"""Stage two: cached features to trained heads.

splits.py, folds.py  which rows validate
loaders.py           the rows in memory; stored.py  those that stay on disk
heads.py             the six fusion heads
train.py             one head, by optimizer.py; stacked.py  many heads at once
calibration.py       temperatures
fit.py               from a cache to run folders; runs.py  what a run folder holds
prediction_table.py  predictions as CSV
estimator.py         the same as a scikit-learn estimator
"""
