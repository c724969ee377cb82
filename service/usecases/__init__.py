"""One function a verb, each over one transaction that somebody else commits."""
