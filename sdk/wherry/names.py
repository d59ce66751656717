"""Names for containers that nobody named: an adjective of the water and a boat."""

import os

_ADJECTIVES = (
    "able bold brisk calm clear deft early even fair fleet gentle glad hardy keen level light lively merry mild nimble "
    "patient plain proud quick quiet ready sober solid sound spry staunch steady stout sturdy sure swift tidal trim "
    "upright vivid wakeful warm wide windward wise"
).split()
_BOATS = (
    "barge bark brig canoe caravel catboat clipper cog coracle cutter dhow dinghy dory ferry galley gig gondola hoy "
    "jolly junk kayak keel ketch launch lighter lugger packet pinnace praam punt raft sampan schooner scow scull skiff "
    "sloop smack tartan tender trow tug wherry xebec yawl"
).split()
_RETRY_DIGITS = 3


def generate() -> str:
    """Such as `brisk_wherry_407`; two calls seldom agree, and whoever needs a free one asks again."""
    pick = int.from_bytes(os.urandom(8), "little")
    pick, adjective = divmod(pick, len(_ADJECTIVES))
    pick, boat = divmod(pick, len(_BOATS))
    return f"{_ADJECTIVES[adjective]}_{_BOATS[boat]}_{pick % 10**_RETRY_DIGITS:0{_RETRY_DIGITS}d}"
