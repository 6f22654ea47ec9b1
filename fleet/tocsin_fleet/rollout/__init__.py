"""A signed bundle reaches the fleet in rings, and stops by itself."""
