"""Docker's Engine API over wherry."""
