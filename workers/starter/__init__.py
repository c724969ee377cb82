"""The starter history: jobs that we trained ourselves, so that a fresh installation is not cold (docs/STARTER.md).

sources.py   the real data sets that the jobs are trained on
variants.py  seeded variants of them: fewer rows, noise, other targets
jobs.py      which network is trained on what, and how one job is run
shelf.py     the packed file, and how it is read
__main__.py  `make history`: runs the jobs that are missing and packs what there is
"""
