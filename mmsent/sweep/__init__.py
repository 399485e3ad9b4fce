"""Sweeps: many trials of heads and settings on one cache, chosen by validation or cross-validation on training rows.

space.py           what a trial may vary, from TOML
sampling.py        which settings the trials try
shared_rows.py     the training rows in splits, which all processes share read-only
trial.py           one trial: from settings and splits to a score with its standard error
stacked_trials.py  many trials of equal shape at once (see mmsent.training.stacked)
pruning.py         which trials stop early
ledger.py          the study (Optuna): all trials, and which one is next
database.py        where the study is stored; whether the process of a trial still exists
workers.py         what runs trials: this process, worker processes, or stacks of similar trials on a GPU
ray_tasks.py       or Ray
search.py          the whole sweep
finish.py          its end: the check on other splits, and the winners fitted again
promote.py         the winners made the newest runs, where a user asks for it
results.py         the result of a finished sweep, as its folder stores it

    <runs>/<name>/
      study.db      the study, unless --storage names another database; optuna-dashboard opens it
      sweep.json    best trials, standard errors, the check on other splits, importances, the saved runs
      trials.csv    one row per trial
      winners/      the best of each fusion as runs; commands take them where they are named or promoted
"""
