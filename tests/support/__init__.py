"""What the tests stand on: images, a registry, a host of their own, and the check that nothing is left over."""
