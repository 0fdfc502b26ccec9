"""Vectors of persons, their groups and their friends; `generate` writes them with the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from holdfast.crypto.atrest import AtRest
from holdfast.crypto.era import Era
from holdfast.crypto.keys import SigningKey
from holdfast.crypto.pure import hash_bytes
from holdfast.crypto.shamir import join
from holdfast.device.eras import (
    begin_era,
    device_wrap,
    era_info,
    person_wrap,
    recovery_wrap,
)
from holdfast.device.peering.pairing import fingerprint_words
from holdfast.device.vault.halves import half_info
from holdfast.logic.group.authority import Level
from holdfast.logic.group.friends import Friend, FriendDevice, FriendEntries, Unpaired
from holdfast.logic.group.members import (
    Added,
    MemberEntries,
    Profile,
    Removed,
    Wrapping,
)
from holdfast.logic.group.operation import encode_entries, group_id
from holdfast.wire.codec import pack
from holdfast.wire.envelope import sign
from holdfast.wire.letter import Letter, LetterBody, answer_info, letter_info, prove_access
from holdfast.wire.pairing import (
    GUEST,
    HOST,
    Card,
    Meeting,
    PairOpen,
    card_key,
    fingerprint,
    pairing_secret,
    proof,
    transcript,
)
from holdfast.wire.person import DeviceStatement
from holdfast.wire.signed import Type

NETWORK = bytes(range(16))
LOCKED_KEY = (
    "686f6c6466617374206c6f636b20310a0001000000000003000000047cef95eb7d40bf181414c4c661dd46ed"
    "dbf843e4310e53f487aba96df88927b3c21eff5c795f26f0ebce98e388ca4c76cd78600593c6f23fa9377ce4"
    "c9f779ce27ddbd1314df4aa600141f5f"
)
"""The seed of the device of `carrying`, locked with its passphrase once."""
SEALED_ERA = (
    "6ba33df29d40de5d5e208a532bc9295f6462f1b434ca3d39777222a6974937444290546173f38f7de220684b"
    "e28668c0cbcbf7b59a4fd352ccecd43a8570d6eb20896b613388649e2793cb5e8444f100c73ef0937dce83e5"
    "84d87dd86fa00d16e6fe990c4c6f6b025409851b8acf7dda7792745d88088cfb3de78eafa4635f9e29ded51d"
    "c1f7688b77574575d699ce4378f46d930d9cfd5505251277e675577255c2ac759eb3ffc35a5c85a9cc1f3342"
    "4d849d0afc7633fa81baf98f66d4a5f7ef6825068e7bbcca04b3e62ff7e5c248667a740bf7d3ed508358ae42"
    "df4a4f91cb66b731d0cf7328a177e0c1850ec72c6ab48c9130eb21fd7e54d5992202a6f0caefd43314c67acb"
    "bcb5af3e0ea01fc388918804e535ba8020eeca8ce7efa6c99a238b6d4bad65090b0768caa4a239a2f714c241"
    "3bd5d7d73c10799abec1dceb1acbd3ce81bdc8fe8ffde0bb712c6b071771330dc8e2de93780eac005aac67ef"
    "ed0863a111c228d27240826d2c9cca43452c1efd26cec5f2f8eb4f2e3b57a6f7baed9951abf8fd92a62d74ac"
    "8a495793d2475d90d5bff5b1d676650c649129a72ad88ce3450da5f54c9a8d4d4251f137528beb48d6da1798"
    "975b0b35d5126ca695df41d22b493528a6065f0ef90984e19150785df75aaa700f98a8260ba1eac6e1f24a09"
    "7a9d932ca0657ae24b27d26a6a1987998632d7a954846a8cc60d25f1bc8ee689454e3b6bef3db71fce242811"
    "185c23266158bcdf740b3d0ecfef609e9a14251f4ccc9ff5f524194e824a1577b7699ad1711700f0be176121"
    "a9a4b6a52394f74be00080579bc0e9c36be0a34575058e01f5b32c111007eb45f42864437b460f345bfd3c0e"
    "03d8c338f2a93302eb431ebf75b816f50853a912259b8e896efd1d1f80bc189fe5b7b60a4bf72010bf0856c1"
    "3e2366a66ccb7e545550c084712d7db1b927c88b4443f9f2bc0e287a2f2bcfa6463b41bf4049eaa44e6ab555"
    "bf2beba3e826d3e6ec8bb31529ea0572078be9169bd10d7267709fa382f0d46d7ce75ace19ec825f7c6a44ee"
    "126679ddce0ff6649f971d9b92e73a6e8c3cdfad7741108f4d93e40a0782f65ed59c6e02ea47eb4dcec0cf1b"
    "6986cb80caa71d5c68e2611d1e2607e54d6641e818a03acd9219eaa4ff1d168f3088a20a8af8ed14f1f7e161"
    "466b85527ae07d3b198a4f7324c8ead570185e553936e8752c637998a56fc792a413a5f6c3c8146068e9f6a8"
    "75dba9cbe4ea35bd20d59a7483c38c9070f502ee50ce0906fe0832e71893bef5b4e4b34afb40635eb91d1f91"
    "b7da611a4db674886f0b803f8629527d2853317419f8c6c549e12df9760383ccebb4a8224d73cbaa90c6313e"
    "193016e6b0230af8c41ef161620681b960cdaf79d45cc4e1ab97066b3002e271b374cfc1e7a90ab3e58a0aed"
    "857d9769acb9991a97e146b39654039bcaa31e9025b488d593b0d10ea8d558e317008df4fab95c1eb4223e34"
    "cecf27cda62aa633d3912d4c8d4320878d0a23a1ab39302626e6a4facccf491bbb7818a1d62de02c03579cea"
    "a5a852fe192fe66a678419b24f88a1a33c0fb47145f78280bcbf623a76d700114210334c9f623e60144f957e"
    "1b68cf3efd4bf9f3fdf706736dd561f0b96f863978e78511"
)
"""The secret of era 1 under X-Wing for the person of `rekeys`: sealing draws randomness, so one
sealing was kept."""


def seed(label: str) -> bytes:
    """A fixed 32-byte secret for `label`."""
    return hash_bytes(b"holdfast vector " + label.encode())


def rekeys() -> list[dict[str, Any]]:
    """A new era: how it is sealed to a reader, and how one finds the way back from it."""
    before, era = Era(seed("era 0"), NETWORK, 0), Era(seed("era 1"), NETWORK, 1)
    group, device = group_id(seed("founder"), seed("nonce")), SigningKey(seed("device"))
    keyring = seed("keyring")
    reader = person_wrap(keyring)
    rekey = begin_era(group, era, before, {})
    entries = MemberEntries(
        (
            Added(device.public, "ada's phone", level=Level.WRITER, person=seed("person")),
            Profile(2, "phone"),
            Removed(seed("lost")),
            Wrapping(1, seed("person"), reader.public),
            rekey,
        )
    )
    return [
        {
            "group": group.hex(),
            "network": NETWORK.hex(),
            "before_secret": before.secret.hex(),
            "secret": era.secret.hex(),
            "number": 1,
            "tag": era.tag.hex(),
            "before": before.tag.hex(),
            "back": rekey.back.hex(),
            "info": era_info(group, 1, era.tag).hex(),
            "keyring_secret": keyring.hex(),
            "person_wrap_public": reader.public.hex(),
            "device_seed": device.seed.hex(),
            "device_wrap_public": device_wrap(device.seed).public.hex(),
            "recovery_secret": seed("recovery").hex(),
            "recovery_wrap_public": recovery_wrap(seed("recovery")).public.hex(),
            "sealed": SEALED_ERA,
            "entries": encode_entries(entries).hex(),
        }
    ]


def pairings() -> list[dict[str, Any]]:
    """What follows from the key that two sides of a pairing have."""
    key, pake = seed("pair key"), b"B" + seed("guest point")
    opening = pack(PairOpen(1, b"A" + seed("host point")))
    t = transcript(opening, pake)
    root, device = SigningKey(seed("person root")), SigningKey(seed("device"))
    statement = DeviceStatement(root.public, device.public, "laptop", ("reader",), 1, 1_795_000_000)
    card = Card(
        statement=sign(root, Type.DEVICE_STATEMENT, statement),
        name="ada",
        person_wrap=person_wrap(seed("keyring")).public,
        device_wrap=device_wrap(device.seed).public,
        addresses=("192.0.2.7:4711",),
        locator="hfloc1...",
        share=seed("share"),
        transcript=t,
    )
    signed = pack(sign(device, Type.PAIR_CARD, card))
    words = fingerprint(key, hash_bytes(signed), hash_bytes(b"the guest's card"))
    meeting = Meeting(seed("meeting")[:16], ("192.0.2.7:4711",), None, 1_795_000_600)
    friend = Friend(
        root.public,
        (),
        "ada",
        pairing_secret(seed("share"), seed("other share")),
        card.person_wrap,
        (FriendDevice(device.public, "laptop", ("reader",), card.device_wrap, card.addresses),),
        card.locator,
        fingerprint_words(words),
        1_795_000_000,
    )
    entries = FriendEntries((friend, Unpaired(seed("other root"), ((seed("op"), 0),))))
    return [
        {
            "key": key.hex(),
            "opening": opening.hex(),
            "pake": pake.hex(),
            "transcript": t.hex(),
            "host_proof": proof(key, HOST, t).hex(),
            "guest_proof": proof(key, GUEST, t).hex(),
            "card_key": card_key(key).hex(),
            "card": signed.hex(),
            "other_card": b"the guest's card".hex(),
            "words": words.hex(),
            "spoken": fingerprint_words(words),
            "shares": [seed("share").hex(), seed("other share").hex()],
            "secret": friend.secret.hex(),
            "line": str(meeting),
            "fields": pack(meeting).hex(),
            "mailbox_secret": meeting.mailbox_secret.hex(),
            "friends": encode_entries(entries).hex(),
        }
    ]


def carrying() -> list[dict[str, Any]]:
    """What lies at rest, letters, and shares: everything that draws no randomness."""
    device, half = SigningKey(seed("device")), seed("half")
    box = AtRest(device.seed, half)
    signed = sign(device, Type.LETTER, LetterBody(seed("recipient"), hash_bytes(b"sealed")))
    reply = device_wrap(seed("reply")).public
    access = SigningKey(seed("access"))
    shares = {1: seed("share one"), 2: seed("share two")}
    return [
        {
            "device_seed": device.seed.hex(),
            "half": half.hex(),
            "where": "eras.secret",
            "data": seed("era").hex(),
            "kept": box.seal("eras.secret", seed("era")).hex(),
            "kept_alone": AtRest(device.seed).seal("eras.secret", seed("era")).hex(),
            "letter": pack(Letter(signed, b"sealed")).hex(),
            "to": seed("recipient").hex(),
            "info": letter_info(seed("recipient")).hex(),
            "answer_info": answer_info(signed.body).hex(),
            "reply_key": reply.hex(),
            "access": [part.hex() for part in prove_access(access, reply, seed("recipient"))],
            "person": seed("person").hex(),
            "half_info": half_info(seed("person"), "half", device.public).hex(),
            "shares": {str(x): share.hex() for x, share in shares.items()},
            "joined": join(shares).hex(),
            "passphrase": "five random words are enough",
            "locked": LOCKED_KEY,
        }
    ]


FILES: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "rekeys": rekeys,
    "pairings": pairings,
    "carrying": carrying,
}
