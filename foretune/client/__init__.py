"""The Python client of a Foretune service.

>>> from foretune import Client, Float
>>> with Client() as client:  # doctest: +SKIP
...     experiment = client.experiments.create(mode="managed", dataset="digits", network="mlp")
...     print(experiment.wait().best)
"""

from foretune.client.client import Client
from foretune.client.experiment import Experiment
from foretune.client.transport import RetryPolicy
from foretune.client.trial import Decision, Trial

__all__ = ["Client", "Decision", "Experiment", "RetryPolicy", "Trial"]
