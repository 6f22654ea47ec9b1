"""How the agent fares, over HTTP: figures for Prometheus, and whether it lives and is ready."""
