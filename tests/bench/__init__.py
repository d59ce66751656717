"""Speed and size of wherry beside docker, podman, runc and crun: `nox -s bench`."""
