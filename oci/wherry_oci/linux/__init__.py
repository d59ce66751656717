"""The only code that calls Linux directly."""
