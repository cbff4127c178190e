"""Names for the demo's people, and community channels: what the import's lines do not carry. Needs Django set up."""

from __future__ import annotations

import random

from pymongo import UpdateOne

from devstack.demo.cast import TRADERS
from devstack.demo.followers import follower_id
from followers.choices import Channel
from followers.models import Endpoint, Follower, Trader
from followers.mongo import collection

CHUNK = 5_000
COMMUNITIES = 2
"""The traders with the largest audiences have a Discord channel of their own."""

FIRST_NAMES = (
    "Aditi Aisha Akash Amelia Anika Anders Arjun Ben Carlos Charlotte Deepak Diya Elena Emma Farah Felix Gita Hana "
    "Harish Hugo Ines Isha Ivan Jack James Julia Karan Kiran Lara Lena Leo Lucas Maya Mei Mia Mohan Nadia Neha Nikhil "
    "Noah Olivia Omar Pooja Rahul Rania Ravi Rhea Sam Sana Sara Shreya Sunil Tara Theo Tomas Uma Varun Wei Yara Zoe"
)
LAST_NAMES = (
    "Agarwal Anderson Bauer Bose Chatterjee Chen Costa Desai Dubois Evans Ferrari Fischer Garcia Ghosh Gupta Haddad "
    "Hansen Hoang Iyer Jain Johnson Kaur Khan Kim Kumar Lee Lopez Menon Meyer Mishra Moreau Nguyen Novak Okafor Park "
    "Patel Pereira Pillai Reddy Rossi Roy Sharma Silva Singh Smith Sousa Suzuki Tan Thomas Verma Walker Wong Yadav"
)


def name_people(followers: int) -> None:
    """Give the traders and the first `followers` followers their names."""
    for trader in TRADERS:
        collection(Trader).update_one({"external_id": trader.external_id}, {"$set": {"name": trader.name}})
    for first in range(1, followers + 1, CHUNK):
        numbers = range(first, min(first + CHUNK, followers + 1))
        statements = [UpdateOne({"external_id": follower_id(n)}, {"$set": {"name": follower_name(n)}}) for n in numbers]
        collection(Follower).bulk_write(statements, ordered=False)


def follower_name(number: int) -> str:
    """The name of follower `number`, always the same."""
    generator = random.Random(f"name {number}")
    return f"{generator.choice(FIRST_NAMES.split())} {generator.choice(LAST_NAMES.split())}"


def open_communities() -> None:
    """Give the best-known traders a community channel; one that is there already stays."""
    for number, trader in enumerate(TRADERS[:COMMUNITIES], start=1):
        generator = random.Random(f"community {number}")
        token = "".join(generator.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=68))
        address = f"https://discord.com/api/webhooks/{2_000_000_000_000_000_000 + number}/{token}"
        owner = Trader.objects.get(external_id=trader.external_id)
        if not Endpoint.objects.filter(trader_id=owner.pk).exists():
            Endpoint.objects.create(trader=owner, channel=Channel.DISCORD, address=address)
