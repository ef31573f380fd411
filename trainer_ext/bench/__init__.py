"""Benchmarks of the engines, each one command that prints its table: `python -m trainer_ext.bench --help`.

They use what the engines show to everybody and nothing else, so that a number here is one that a user gets.
"""
