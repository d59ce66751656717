"""
The embedded OCI runtime: what a shim calls in its own process instead of starting runc.

Everything here runs on the standard library alone, and imports little of that: see CONTRIBUTING.md, "The start path".
"""
