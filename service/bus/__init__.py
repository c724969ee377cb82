"""The only Redis: doorbells, wake-ups and calls to a desk worker. Nothing here is the truth; all of it may be lost."""

from service.bus.bus import Bus, Call, ping
from service.bus.waking import EventWaker

__all__ = ["Bus", "Call", "EventWaker", "ping"]
