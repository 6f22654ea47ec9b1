"""Scores → alarms. Rules: no I/O, no clock: time is passed in."""
