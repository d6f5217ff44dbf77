"""Traffic and attack generators, Locust scenarios and benchmarks."""
