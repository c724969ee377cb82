"""Finished experiments of other tools as histories, one JSON line each (`foretune.wire.histories.HistoryLine`).

runs.py      runs of any origin, and the history that they make: the space where the source does not say
tables.py    CSV: a row a run; exports of MLflow and W&B are such tables, too
exports.py   JSON exports of W&B and MLflow
optuna.py    Optuna's storages
"""
