"""Locust scenarios: gateways that publish a fleet's traffic to Kafka, and watch what comes of it.

Each is a file for `locust -f`; `python -m loadtests.load NAME` starts all that it needs around it.
"""
