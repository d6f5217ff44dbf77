"""Attacks on routers, by family: what evaluation, demo, drills and load tests plant."""
