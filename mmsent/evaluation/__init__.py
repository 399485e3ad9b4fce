"""How good and how trustworthy heads are: scores, cross-validation, the audit of labels, replaying a run."""
