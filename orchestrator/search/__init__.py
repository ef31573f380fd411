"""An adaptive search over a sweep's parameters: Optuna proposes, the loop runs, and the trials are told what came of it.

Optuna is imported by `journal`, `samplers` and `study` alone, when a search is driven; the notation of the sweep file
(`space`, `figures`) and the results (`results`) need nothing.
"""
