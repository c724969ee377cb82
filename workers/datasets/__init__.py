"""Data in: files become data sets, data sets become tensors.

`parse` reads an upload, `load_builtin` what comes with scikit-learn; `save` and `load` keep the canonical form;
`prepare` splits and encodes for training; `meta_features` describes a data set to the meta-learner.
Nothing here knows a queue, a database or HTTP, and only `prepare` imports torch.
"""
