"""Feedback that is attacked: what thresholds do when outcomes move them and somebody wants them moved.

`scores` (what a trained router gives to safe and unsafe prompts) -> `world` (a fleet, its judges, who attacks them)
-> `methods` (the ratchet and what is usual) -> `simulation` (runs and intervals) -> `page` (docs).
"""
