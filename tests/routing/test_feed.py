"""Feeds: who leads, who only follows and is followed, and what a follower is told."""

from contextlib import aclosing

import trio
from trio.testing import wait_all_tasks_blocked

from ipcs.routing.feed import LEAD_TTL, Feeds

DIGEST = "sha256:" + "1" * 64
LEAVES = [bytes([number]) * 32 for number in range(4)]


async def test_who_follows_may_be_followed_but_does_not_lead(autojump_clock):
    feeds = Feeds()
    feeds.add(DIGEST, 0, LEAVES[:1])
    assert not feeds.leads(DIGEST), "else, when a leader dies, each of its followers is told that all others lead"
    with trio.fail_after(1):
        await feeds.wait_begun(DIGEST)
    feeds.lead(DIGEST)
    assert feeds.leads(DIGEST)
    feeds.over(DIGEST, whole=True)
    assert not feeds.leads(DIGEST)


async def test_a_decision_without_a_first_byte_counts_for_a_while(autojump_clock):
    feeds = Feeds()
    feeds.lead(DIGEST)
    await trio.sleep(LEAD_TTL + 0.1)
    assert not feeds.leads(DIGEST)
    began = False

    async def wait():
        nonlocal began
        await feeds.wait_begun(DIGEST)
        began = True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        assert not began
        feeds.add(DIGEST, 0, LEAVES[:1])
    assert began
    assert feeds.leads(DIGEST)


async def test_a_follower_is_told_each_leaf_once_in_order_and_how_it_ended():
    feeds = Feeds()
    feeds.add(DIGEST, 0, LEAVES[:2])
    async with aclosing(feeds.follow(DIGEST)) as feed:
        assert await anext(feed) == LEAVES[:2]
        feeds.add(DIGEST, 1, LEAVES[1:3])
        feeds.add(DIGEST, 9, LEAVES[3:])  # does not follow on
        assert await anext(feed) == LEAVES[2:3]
        feeds.over(DIGEST, whole=True)
        assert [told async for told in feed] == [[]]
