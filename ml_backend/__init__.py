"""Learns from votes, predicts, serves Label Studio."""
