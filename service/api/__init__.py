"""What answers over HTTP. Thin: an endpoint names a use case and a status; the rest is here once, for all of them."""
