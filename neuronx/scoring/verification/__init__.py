"""Verification: explanations tried on pictures that are made, or found, to test them."""
