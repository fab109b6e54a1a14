"""How any work runs: here or on a cluster. Knows no plankton."""
