"""Files through which a rank and the process that started it speak, in a folder of their own."""

PLAN = "plan.json"
CONFIG = "config.yaml"
"""The job's."""
EVENTS = "events.jsonl"
