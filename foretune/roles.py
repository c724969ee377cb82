"""Roles: what a hyperparameter does, whatever it is called in one space or another."""

from __future__ import annotations

ROLES: tuple[str, ...] = (
    "learning_rate",
    "weight_decay",
    "momentum",
    "beta1",
    "beta2",
    "epsilon",
    "batch_size",
    "dropout",
    "width",
    "depth",
    "label_smoothing",
    "optimizer",
    "activation",
    "lr_schedule",
    "warmup_fraction",
    "gradient_clip",
    "kernel_size",
    "heads",
    "l1",
    "l2",
)
"""The roles that the meta-learner knows; a client may name others, which then match only themselves."""

_NAMES: dict[str, str] = {
    "lr": "learning_rate",
    "eta": "learning_rate",
    "initial_lr": "learning_rate",
    "init_lr": "learning_rate",
    "learning_rate_init": "learning_rate",
    "peak_lr": "learning_rate",
    "wd": "weight_decay",
    "decay": "weight_decay",
    "beta_1": "beta1",
    "adam_beta1": "beta1",
    "beta_2": "beta2",
    "adam_beta2": "beta2",
    "eps": "epsilon",
    "adam_epsilon": "epsilon",
    "bs": "batch_size",
    "batch": "batch_size",
    "batchsize": "batch_size",
    "train_batch_size": "batch_size",
    "per_device_train_batch_size": "batch_size",
    "dropout_rate": "dropout",
    "max_dropout": "dropout",
    "p_dropout": "dropout",
    "hidden_size": "width",
    "hidden_dim": "width",
    "hidden_units": "width",
    "max_units": "width",
    "units": "width",
    "n_units": "width",
    "channels": "width",
    "d_model": "width",
    "num_layers": "depth",
    "n_layers": "depth",
    "layers": "depth",
    "num_hidden_layers": "depth",
    "blocks": "depth",
    "smoothing": "label_smoothing",
    "opt": "optimizer",
    "optim": "optimizer",
    "optimizer_type": "optimizer",
    "activation_fn": "activation",
    "schedule": "lr_schedule",
    "warmup": "warmup_fraction",
    "warmup_ratio": "warmup_fraction",
    "grad_clip": "gradient_clip",
    "clip_norm": "gradient_clip",
    "max_grad_norm": "gradient_clip",
    "n_heads": "heads",
    "num_heads": "heads",
}


def guess_role(name: str) -> str | None:
    """The role that a well-known parameter name has, else None. Case, dots and dashes do not matter."""
    key = name.lower().replace("-", "_").rsplit(".", 1)[-1].rsplit("/", 1)[-1]
    if key in ROLES:
        return key
    return _NAMES.get(key)
