"""A device as a witness: it shows its receipts to the group, audits, and hands proofs to HQ.

None of this is needed for its own data. It makes a server that lies to another device, or later,
contradict what it signed here.
"""

from __future__ import annotations

import logging

from holdfast.device.runtime import DeviceRuntime
from holdfast.errors import OperationFault, PeerFault

_log = logging.getLogger(__name__)


async def show_receipts(runtime: DeviceRuntime) -> int:
    """Show the other devices of every folder the receipts that they have not seen; how many."""
    shown = 0
    for folder in runtime.folders.values():
        for era in folder.group.eras:
            shown += await folder.group.slot.show_receipts(era)
    return shown


async def hand_in(runtime: DeviceRuntime) -> int:
    """Hand HQ the proofs it was not handed; how many it kept. HQ learns the proof and from which
    address it came. A proof that HQ does not want is not offered again."""
    kept = 0
    findings = runtime.state.store.findings
    for slot_id in list(runtime.slots):
        locator = runtime.state.locator(slot_id)
        if locator is None or not locator.hq:
            continue
        for name, data in findings.untold(slot_id):
            try:
                kept += await runtime.headquarters.accuse(locator, data)
            except OperationFault as fault:
                _log.info("proofs wait for HQ: %s", fault)
                return kept
            except PeerFault as fault:
                _log.warning("HQ does not take a proof: %s", fault)
            findings.told(name, runtime.clock.wall())
    return kept
