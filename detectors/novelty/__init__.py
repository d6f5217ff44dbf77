"""Unseen triggers in one prompt: text at an end that does not follow from itself, beside a body that does.

The way of a prompt: `tokens` (case kept, white space normalised) -> `ngrams` (how each token follows from its
neighbours) -> `features` (windows from both ends against the body) and `tagger` (which tokens were put in) ->
`trees` (one number) -> `scale` (a benign quantile) -> `detector` (the answer). `training` makes the artefact.
"""
