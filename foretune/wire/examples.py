"""What the models look like on the wire, as the OpenAPI page shows it. A test holds every one against its model."""

from __future__ import annotations

from foretune.json_types import JsonObject, JsonValue

_AT, _LATER, _END = "2026-11-02T09:30:00Z", "2026-11-02T09:30:02Z", "2026-11-02T09:34:00Z"
_EXPERIMENT, _TRIAL = "exp_7d2k0m3v5x8z1b4c6f9h0j", "tri_3f5h7k9m1p2r4t6v8x0z2b"
_NEXT_TRIAL = "tri_6h8k0m2p4r6t8v0x2z4b6d"
_DATASET = "dst_5c1v8n3b6m9k2j4h7g0f1d"
_SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

SPACE: list[JsonValue] = [
    {"name": "learning_rate", "type": "float", "low": 1e-5, "high": 1.0, "log": True, "role": "learning_rate"},
    {"name": "width", "type": "int", "low": 16, "high": 512, "log": True},
    {"name": "lr_schedule", "type": "schedule"},
]
HYPERPARAMETERS: JsonObject = {
    "learning_rate": 0.004,
    "width": 256,
    "lr_schedule": {"warmup_fraction": 0.1, "plateau_fraction": 0.3, "decay_exponent": 1.0, "final_fraction": 0.0},
}
LR_SCHEDULE: JsonObject = {
    "peak": 0.004,
    "warmup_fraction": 0.1,
    "plateau_fraction": 0.3,
    "decay_exponent": 1.0,
    "final_fraction": 0.0,
    "values": [0.0026, 0.004, 0.0036, 0.0022, 0.0007],
}
PREDICTED: JsonObject = {"metric": "val_accuracy", "median": 0.97, "low": 0.94, "high": 0.985}
LEASE: JsonObject = {"token": "1.Zq3vJx0c8yHs2m4T", "expires_at": "2026-11-02T09:31:02Z"}
EXPERIMENT: JsonObject = {
    "id": _EXPERIMENT,
    "name": "digits-mlp",
    "state": "RUNNING",
    "mode": "managed",
    "created_at": _AT,
    "started_at": _LATER,
    "finished_at": None,
    "reason": None,
    "dataset": "digits",
    "network": "mlp",
    "metric": {"name": "val_accuracy", "goal": "maximize"},
    "space": SPACE,
    "fixed": {"batch_size": 128},
    "budget": {"max_trials": 64, "max_epochs": 5, "max_total_epochs": None, "max_seconds": None, "target": 0.99},
    "stopping": "auto",
    "proposer": "auto",
    "priors": "auto",
    "parallelism": 8,
    "seed": 0,
    "share_history": True,
    "labels": {"team": "vision"},
    "features": {},
    "progress": {
        "trials": {"RUNNING": 8, "COMPLETED": 20, "STOPPED": 11},
        "epochs": 140,
        "seconds": 41.2,
        "fraction": 0.61,
        "eta_seconds": 26.3,
    },
    "best": {
        "trial": _TRIAL,
        "number": 12,
        "value": 0.983,
        "epoch": 5,
        "hyperparameters": HYPERPARAMETERS,
        "lr_schedule": LR_SCHEDULE,
    },
    "last_event": 198,
}
TRIAL: JsonObject = {
    "id": _TRIAL,
    "experiment": _EXPERIMENT,
    "number": 12,
    "state": "COMPLETED",
    "reason": None,
    "hyperparameters": HYPERPARAMETERS,
    "lr_schedule": LR_SCHEDULE,
    "origin": "portfolio",
    "predicted": PREDICTED,
    "attempts": 1,
    "epochs": 5,
    "value": 0.983,
    "best_value": 0.983,
    "best_epoch": 5,
    "seconds": 3.9,
    "created_at": _LATER,
    "started_at": _LATER,
    "finished_at": _END,
}
MEASUREMENT: JsonObject = {
    "epoch": 1,
    "value": 0.81,
    "seconds": 3.2,
    "metrics": {"train_loss": 0.44},
    "created_at": _LATER,
}
SUGGESTIONS: JsonObject = {
    "trials": [
        {
            "id": _TRIAL,
            "number": 12,
            "hyperparameters": HYPERPARAMETERS,
            "lr_schedule": LR_SCHEDULE,
            "origin": "portfolio",
            "predicted": PREDICTED,
            "lease": LEASE,
        }
    ]
}
COMPLETED: JsonObject = {
    **TRIAL,
    "next": {
        "trials": [
            {
                "id": _NEXT_TRIAL,
                "number": 13,
                "hyperparameters": HYPERPARAMETERS,
                "lr_schedule": LR_SCHEDULE,
                "origin": "gp",
                "predicted": PREDICTED,
                "lease": LEASE,
            }
        ]
    },
}
MEASURED: JsonObject = {"decision": "continue", "lr_factor": 1.0, "lease": LEASE}
RECOMMENDATIONS: JsonObject = {
    "id": "rec_8g1j4l7n0q3s6u9w2y5a8c",
    "recommendations": [
        {
            "rank": 1,
            "hyperparameters": HYPERPARAMETERS,
            "lr_schedule": LR_SCHEDULE,
            "predicted": PREDICTED,
            "origin": "portfolio",
            "trial": None,
            "evidence": [{"experiment": _EXPERIMENT, "similarity": 0.83, "best": 0.98}],
        }
    ],
    "confidence": "high",
    "model": {"version": 12, "experiments": 153, "trials": 9800, "promoted_at": _AT},
}
IMPORTED: JsonObject = {
    "imported": 2,
    "duplicates": 1,
    "errors": [{"line": 3, "code": "invalid_history", "detail": "trials: none of them has a value to learn from"}],
}
DATASET: JsonObject = {
    "id": _DATASET,
    "name": "churn",
    "task": "classification",
    "modality": "tabular",
    "views": ["tabular"],
    "rows": 7043,
    "features": 19,
    "classes": 2,
    "target": "left",
    "sha256": _SHA256,
    "size_bytes": 977501,
    "builtin": False,
    "created_at": _AT,
    "meta_features": {"rows": 7043.0, "classes": 2.0},
    "warnings": ["column 'id' is left out: it differs in every row"],
}
PENDING_DATASET: JsonObject = {
    "id": _DATASET,
    "name": "churn",
    "state": "PARSING",
    "error": None,
    "sha256": _SHA256,
    "size_bytes": 977501,
    "created_at": _AT,
}
UPLOAD: JsonObject = {"file": "age,calls,left\n41,3,no\n29,11,yes\n", "name": "churn", "target": "left"}
NETWORK: JsonObject = {
    "name": "mlp",
    "description": "a multi-layer perceptron",
    "tasks": ["classification", "regression"],
    "views": ["tabular", "image"],
    "space": SPACE,
    "limits": [{"name": "width", "type": "int", "low": 1, "high": 8192}],
    "defaults": {"learning_rate": 0.001, "width": 128},
    "metrics": {"classification": ["val_accuracy", "val_loss"], "regression": ["val_rmse", "val_loss"]},
}
_VERSION: JsonObject = {
    "version": 12,
    "state": "CHAMPION",
    "parent": 11,
    "experiments": 153,
    "trials": 9800,
    "fitted": 153,
    "scores": {"model": 0.08, "random": 0.31, "portfolio": 0.12},
    "space": None,
    "reason": None,
    "created_at": _AT,
    "finished_at": _END,
    "promoted_at": _END,
}
METALEARNER: JsonObject = {
    "version": 12,
    "kind": "fitted",
    "model": _VERSION,
    "versions": [_VERSION],
    "starter": True,
    "experiments": 155,
    "imported": 20,
    "trials": 9930,
    "updated_at": _END,
    "waiting": False,
}
PRIORS: JsonObject = {
    "experiment": _EXPERIMENT,
    "considered": 155,
    "space": "features",
    "histories": [
        {
            "experiment": "exp_1a4d7g0k3n6q9t2w5z8c1f",
            "name": "wine-mlp",
            "similarity": 0.83,
            "trials": 64,
            "best": 0.98,
            "metric": "val_accuracy",
        }
    ],
    "gate": {"trust": 0.9, "agreement": 0.7, "results": 12, "says": "the histories rank the results well"},
}
HEALTH: JsonObject = {"status": "ok", "version": "0.1.0"}
READINESS: JsonObject = {
    "ready": True,
    "parts": dict.fromkeys(("database", "broker", "workers", "networks", "datasets"), "ok"),
}
KEY: JsonObject = {
    "id": "key_2b5e8h1k4n7q0t3w6z9c2f",
    "name": "laptop",
    "project": "default",
    "prefix": "ft_9sK2",
    "created_at": _AT,
    "expires_at": "2027-01-31T09:30:00Z",
    "revoked_at": None,
    "last_used_at": None,
}
NEW_KEY: JsonObject = {**KEY, "key": "ft_9sK2wX4bT7mQ1vZ8nR5cL0hJ3dF6gA2yE9"}
