"""Signed bundles for devices: a repository of The Update Framework, and its keys."""
