"""The past judged again, apart from the live service: no consumer group, no state of it, nobody paged."""
