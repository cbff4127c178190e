"""NotifyHub at work, in one command: `make demo` (`python -m devstack.demo`).

Starts the servers and sandbox vendors, loads followers, runs every process as it is run in production, publishes
trades at a human pace and shows what becomes of them. What it shows is read from MongoDB, the queue and the vendors'
own counters.
"""
