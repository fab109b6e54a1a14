"""Images to features, without labels."""
