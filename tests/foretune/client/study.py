"""An external experiment for the tests of the ask/tell loop."""

from __future__ import annotations

import threading
from collections import Counter
from datetime import UTC, datetime, timedelta

EXPERIMENT = "/v1/experiments/exp_1"
SCHEDULE = {"peak": 0.1, "warmup_fraction": 0, "plateau_fraction": 0, "decay_exponent": 1, "final_fraction": 0}


class Study:
    """An external experiment on the scripted service, which keeps count of what it is told."""

    def __init__(self, service, max_trials: int = 3, lease_s: float = 60.0) -> None:
        self.service, self.max_trials, self.lease_s = service, max_trials, lease_s
        self.asks = 0  # calls of /suggestions
        self.asked, self.told, self.beats, self.decision = 0, [], Counter(), "continue"
        self.lock = threading.Lock()
        service.on("POST", "/v1/experiments", lambda request: self.reply(self.info()))
        service.on("GET", EXPERIMENT, lambda request: self.reply(self.info()))
        service.on("POST", f"{EXPERIMENT}/suggestions", self.suggest)
        for n in range(1, max_trials + 1):
            service.on("POST", f"/v1/trials/tri_{n}/measurements", self.measured)
            service.on("POST", f"/v1/trials/tri_{n}/heartbeat", self.beaten)
            service.on("POST", f"/v1/trials/tri_{n}/complete", self.completed)

    @property
    def now(self) -> datetime:
        return datetime.now(UTC)

    def reply(self, body: object):
        return self.service.answer(body)

    def lease(self, n: object) -> dict[str, object]:
        return {"token": f"token-{n}", "expires_at": (self.now + timedelta(seconds=self.lease_s)).isoformat()}

    def info(self) -> dict[str, object]:
        return {
            "id": "exp_1", "name": "n", "state": "RUNNING", "mode": "external", "created_at": self.now.isoformat(),
            "metric": {"name": "val_loss", "goal": "minimize"}, "space": [], "fixed": {}, "budget": {},
            "stopping": "auto", "proposer": "auto", "priors": "auto", "parallelism": 1, "seed": 0,
            "share_history": True, "labels": {}, "features": {}, "last_event": 0,
            "progress": {"trials": {}, "epochs": 0, "seconds": 0, "fraction": 0},
        }  # fmt: skip

    def suggest(self, request):
        self.asks += 1
        trials = self.suggestions(request.json["count"])
        if not trials:
            return self.service.problem(409, "budget_exhausted", "all 3 trials are out")
        return self.reply({"trials": trials})

    def suggestions(self, count: int) -> list[dict[str, object]]:
        trials: list[dict[str, object]] = []
        with self.lock:
            for _ in range(min(count, self.max_trials - self.asked)):
                self.asked += 1
                trials.append({
                    "id": f"tri_{self.asked}", "number": self.asked, "hyperparameters": {"x": 0.5 * self.asked},
                    "lr_schedule": {**SCHEDULE, "values": [0.1, 0.05]}, "origin": "gp",
                    "lease": self.lease(self.asked),
                })  # fmt: skip
        return trials

    def measured(self, request):
        self.told.append(("measured", request.json))
        answer = {"decision": self.decision, "lr_factor": 0.5, "lease": self.lease(request.path.split("_")[1][0])}
        return self.reply(answer)

    def beaten(self, request):
        self.beats[request.json["lease"]] += 1
        return self.reply({"lease": self.lease(request.json["lease"].removeprefix("token-"))})

    def completed(self, request):
        self.told.append(("completed", request.json))
        ended = {
            "id": "tri_1", "experiment": "exp_1", "number": 1, "state": "COMPLETED", "hyperparameters": {},
            "origin": "gp", "attempts": 1, "epochs": 0, "seconds": 0.0, "created_at": self.now.isoformat(),
        }  # fmt: skip
        if "next" in request.json:
            ended["next"] = {"trials": self.suggestions(request.json["next"]["count"])}
        return self.reply(ended)

    @property
    def endings(self) -> list[dict[str, object]]:
        without = {"lease", "next"}
        return [{k: v for k, v in body.items() if k not in without} for kind, body in self.told if kind == "completed"]
