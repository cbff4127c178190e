"""Other ways to do NotifyHub's work, to measure it by: from a usual Celery pipeline to the same protocol by hand.

All of them read the same trades and followers, store the same documents into the same collections with the same
indexes and write concern, decrypt the same addresses and send the same messages.
"""
