"""The OCI runtime specification in Python: its documents, the system calls, and the embedded runtime."""
