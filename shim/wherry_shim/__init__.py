"""The detached parent of one container, and the small client that talks to it."""
