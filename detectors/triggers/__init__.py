"""Triggers known to the catalogue: lexical and semantic matching, their review, and growing new ones."""
