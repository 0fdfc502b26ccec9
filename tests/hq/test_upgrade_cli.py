"""`holdfast hq release` and `hq upgrade` as an operator types them, at a running headquarters."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.hq.headquarters import Node, Operator, make_root, run

import holdfast
from holdfast import __version__
from holdfast.cli import hq_release, hq_upgrade
from holdfast.cli.node_defer import defer as node_defer
from holdfast.cli.relay_role import _policy
from holdfast.cli.release_key import make_release_key
from holdfast.errors import UsageError
from holdfast.hq.main import Headquarters
from holdfast.limits import REQUESTS_PER_S_MAX
from holdfast.relay.policy import RelayPolicy
from holdfast.rim.clock import SystemClock
from holdfast.rim.entropy import SystemEntropy
from holdfast.rim.files import lock_directory, wait_unlocked
from holdfast.wire.codec import pack_json
from holdfast.wire.release import Knobs
from holdfast.wire.versions import WIRE, WIRE_MIN

SOURCE = Path(holdfast.__file__).parents[1]


def test_sign_add_list_show_upgrade(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_release_key(make_root(), tmp_path / "key", SystemClock().wall(), SystemEntropy())
    file, homes = tmp_path / "calm.release", list[Path]()
    hq_release.sign(
        SOURCE, key=tmp_path / "key", out=file, name="calm", requests_per_s=500.0, json=True
    )

    async def said(verb: Callable[..., None], *words: str, **options: Any) -> dict[str, Any]:
        capsys.readouterr()
        await asyncio.to_thread(verb, *words, home=homes[0], json=True, **options)
        found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
        return found

    async def scenario(hq: Headquarters, operator: Operator) -> None:
        homes.append(hq.home.directory)
        await said(hq_release.add, file)  # type: ignore[arg-type]
        (listed,) = (await said(hq_release.show_all))["items"]
        shown = await said(hq_release.show, "calm")
        assert shown["id"] == listed["id"]
        assert (shown["version"], shown["wire_min"], shown["wire"]) == (__version__, WIRE_MIN, WIRE)
        assert shown["knobs"]["requests_per_s"] == 500.0
        with pytest.raises(UsageError, match="release list"):
            await said(hq_release.show, "other")
        with pytest.raises(UsageError, match="no server stands"):
            await said(hq_upgrade.start, "calm")

        node = Node(hq.parts.api_addresses, hq.parts.authority.roots)
        await node.join(await operator.token())
        assert hq.parts.brain is not None
        async with asyncio.timeout(20):
            while not hq.parts.rolling().servers():  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await said(hq_upgrade.defer, "relay-eu-001", days=3.0)
        await said(hq_upgrade.start, listed["id"][:12], canary="eu")
        view = await said(hq_upgrade.status)
        assert (view["release"], view["state"], view["back_to"]) == ("calm", "canary", "installed")
        assert view["places"][0]["deferred_until"] > SystemClock().wall()
        await said(hq_upgrade.halt, reason="lunch")
        assert (await said(hq_upgrade.status))["reason"] == "lunch"
        await said(hq_upgrade.resume)
        await said(hq_upgrade.back, reason="enough")
        assert (await said(hq_upgrade.status))["state"] in ("back", "backed")

    run(scenario, tmp_path)


def test_the_settings_of_a_release_reach_the_relay(tmp_path: Path) -> None:
    file = tmp_path / "knobs.json"
    file.write_bytes(pack_json(Knobs(requests_per_s=5.0, session_idle_s=60.0)))
    policy = _policy(REQUESTS_PER_S_MAX, file)
    assert (policy.requests_per_s, policy.session_idle_s) == (5.0, 60.0)
    assert policy.sessions_max == RelayPolicy().sessions_max
    file.write_bytes(b'{"requests_per_s": 0, "sessions_max": null, "session_idle_s": null}')
    with pytest.raises(UsageError, match="above zero"):
        _policy(REQUESTS_PER_S_MAX, file)
    file.write_bytes(b"no settings")
    with pytest.raises(UsageError, match=r"knobs\.json"):
        _policy(REQUESTS_PER_S_MAX, file)


def test_who_never_joined_puts_nothing_off(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has not joined"):
        node_defer(dir=tmp_path / "node", days=3.0)
    with pytest.raises(UsageError, match="0 to 90"):
        node_defer(dir=tmp_path / "node", days=91.0)


def test_a_warm_role_waits_for_the_data_and_not_for_ever(tmp_path: Path) -> None:
    async def main() -> None:
        clock = SystemClock()
        held = lock_directory(tmp_path / "role", "a relay")
        waiting = asyncio.create_task(wait_unlocked(tmp_path / "role", clock, 10.0))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        held.close()
        await asyncio.wait_for(waiting, 5.0)
        held = lock_directory(tmp_path / "role", "a relay")
        await asyncio.wait_for(wait_unlocked(tmp_path / "role", clock, 0.1), 5.0)
        held.close()

    asyncio.run(main())
