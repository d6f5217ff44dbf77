"""Load: a Locust scenario with all that it needs around it, judged by ids when it is over."""
