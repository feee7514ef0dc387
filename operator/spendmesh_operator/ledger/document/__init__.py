"""The books as named sections of JSON, and back."""
