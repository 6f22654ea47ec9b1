"""Which figures of `metrics` are better when higher, and which when lower. Imports nothing: `--help` reads it."""

HIGHER = ("vus_pr", "average_precision", "roc_auc", "f1", "precision", "recall", "event_recall")
LOWER = ("far", "mar", "false_events_per_day", "delay_s")
