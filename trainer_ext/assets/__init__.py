"""Models and prompts that jobs make for themselves, so that a sweep runs on a machine without a model hub.

`python -m trainer_ext.assets smollm2|tiny-qwen2|qwen2-shape|prompts --out PATH`: each verb is idempotent and safe to run from
many jobs at once, because every job of a sweep runs it before training.
"""
