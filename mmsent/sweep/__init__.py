"""Sweeps: many trials of heads and settings on one cache, chosen by validation or cross-validation on training rows.

space.py      what a trial may vary, from TOML
ground.py     the rows of every split, shared read-only by all processes; new splits for the check afterwards
trial.py      one trial: settings and splits to a score with its standard error
stacks.py     many trials of equal shape at once (see mmsent.training.stacked)
ledger.py     the study (Optuna): which trials there are, which are next, which stop early
database.py   where the study lies; whether the process of a trial is still there
workers.py    who computes them: this process, worker processes, or stacks of like trials on a GPU
ray_tasks.py  or Ray
search.py     all of it together: the search
ending.py     and its end: the check on other splits, the refit of the winners
results.py    what a finished sweep says, as its folder keeps it

    <runs>/<name>/
      study.db      the study, unless --storage names another; optuna-dashboard opens it
      sweep.json    best trials, standard errors, the check on other splits, importances, the saved runs
      trials.csv    a row a trial
"""
