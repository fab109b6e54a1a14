"""Annotations and predictions to files."""
