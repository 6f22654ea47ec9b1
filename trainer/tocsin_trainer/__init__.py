"""Recordings of normal running → a bundle. This package runs on the workstation."""
