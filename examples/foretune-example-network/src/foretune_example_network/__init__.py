"""An example of a network that a package adds to Foretune; see `resnet`."""
