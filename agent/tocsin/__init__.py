"""Tocsin: an alarm bell for machines. This package runs on the device."""

__version__ = "0.1.0"
