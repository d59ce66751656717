"""OCI documents as attrs classes, field for field as the specifications name them."""
