"""NotifyHub under fire: `make chaos` (`python -m devstack.chaos`).

Runs every process on servers and sandbox vendors of its own, keeps trades coming, strikes at random moments (kills,
restarts, outages, a network that misbehaves), and judges after each fault whether every accepted trade has come to a
true end for each of its followers. What it expects it knows by itself: what Kafka acknowledged to it, whom it made
follow whom, and what the vendors say they accepted.
"""
