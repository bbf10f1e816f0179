"""Senders that mean harm, at a webhook of a real node: nothing of theirs is accepted.

Forged and altered signatures, repeats, old messages, requests within requests, bombs, bodies that no two
readers read alike, headers that drip, and thousands of connections, all at once, while an honest
sender's messages come in and another stream is used. At the end the webhook's function has seen the
honest messages, each once, and nothing else.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import hmac
import json
import resource
import threading
import time
from collections import Counter
from random import Random

from tests.auditor.outside import Finding
from tests.auditor.works import everything
from tests.integration.faults.doors import Answer, address, once, post, together
from tests.integration.faults.processes import wait_until
from tests.integration.faults.results import Result, figures_of, leave
from tests.integration.faults.sites import Site

KEY = b"only the sender knows"
PATH = "/hooks/in"
HONEST = 60
CONNECTIONS = 1_500
"""More than a node holds (1,024); those of a push's one round of attacks."""
CROWD = 10_000
"""Those of a round of the campaign, where so many files may be open."""
OTHERS_S = 3.0
"""What a bystander's request may take at the worst: two cores are shared with all attackers."""

APP = '''
"""A webhook, and a stream of somebody else."""

from headrace import App, Event, Webhook
from headrace.webhooks import GitHub

app = App("hooks", owner="campaign")
orders = app.stream("orders")
seen = app.stream("seen")


@app.function(Webhook("/hooks/in", GitHub("HOOK")), output=seen)
def hook(event: Event[dict]):
    """What was accepted."""
    return {"n": event.value["n"]}
'''


def hostile_webhooks(site: Site, times: int, seed: int) -> Result:
    """So many rounds of everything."""
    random = Random(seed)
    (site.folder / "key").touch(mode=0o600)
    (site.folder / "key").write_bytes(KEY)
    (site.folder / "headrace.toml").write_text(f'[secrets]\nHOOK = "file:{site.folder}/key"\n')
    site.write(APP)
    site.start()
    findings: list[Finding] = []
    sent = 0
    answers: Counter[str] = Counter()
    slowest = 0.0
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    connections = CROWD if times > 1 and files > CROWD + 1_000 else CONNECTIONS
    for _ in range(times):
        with Bystander(site) as other:
            told, found = asyncio.run(_round(address(site), sent, random, connections))
        sent += HONEST
        answers += told
        slowest = max(slowest, other.slowest)
        findings += found
    wait_until(
        lambda: not sum(row["lag"] for row in site.get("/-/v1/lag")["lag"]),
        seconds=30,
        what=lambda: f"the webhook's function has seen all {site.said()}",
    )
    accepted = Counter(record["value"]["n"] for record in everything(site.ask, "seen"))
    if lost := [number for number in range(sent) if not accepted[number]]:
        findings.append(Finding("I1", f"honest messages are lost: {lost[:5]}"))
    if twice := [number for number, count in accepted.items() if count > 1]:
        findings.append(Finding("I2", f"messages were accepted twice: {twice[:5]}"))
    if strange := accepted.keys() - set(range(sent)):
        findings.append(Finding("I2", f"hostile messages were accepted: {sorted(strange)[:5]}"))
    if slowest > OTHERS_S:
        findings.append(Finding("I10", f"another request took {slowest:.1f} s"))
    findings += leave(site)
    return Result(
        fault="hostile webhooks",
        times=times,
        events=sent,
        findings=[str(finding) for finding in findings],
        figures={
            "attacks": sum(answers.values()),
            "connections": connections,
            "worst_other_s": round(slowest, 3),
            **answers,
            **figures_of(site),
        },
    )


class Bystander(threading.Thread):
    """Somebody who has had a connection all along, and goes on publishing over it."""

    def __init__(self, site: Site) -> None:
        super().__init__(name="bystander", daemon=True)
        self.slowest = 0.0
        self._site = site
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.02):
            began = time.monotonic()
            self._site.ask("/-/v1/streams/orders", body=b'{"n": 0}')
            self.slowest = max(self.slowest, time.monotonic() - began)
        self._site.hang_up()

    def __enter__(self) -> Bystander:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join(timeout=60)


def signed(body: bytes) -> bytes:
    """The header of an honest sender."""
    return (
        b"x-hub-signature-256: sha256=" + hmac.new(KEY, body, hashlib.sha256).hexdigest().encode()
    )


def honest(number: int) -> bytes:
    """A message that is to be accepted."""
    body = b'{"n": %d}' % number
    return post(PATH, body, signed(body))


def hostile(random: Random) -> dict[str, bytes]:
    """One of each kind; -1 and below are numbers nobody honest sends."""
    body = b'{"n": -%d}' % random.randrange(1, 10**9)
    good = signed(body)
    inner = post(PATH, body, b"x-hub-signature-256: sha256=" + b"0" * 64)
    head = f"POST {PATH} HTTP/1.1\r\nhost: localhost\r\n".encode()
    length = b"content-length: %d\r\n" % len(inner)
    bomb = gzip.compress(b'{"n": -1, "pad": "' + b" " * (64 << 20) + b'"}', 9)
    return {
        "unsigned": post(PATH, body),
        "forged": post(PATH, body, b"x-hub-signature-256: sha256=" + b"0" * 64),
        "of another body": post(PATH, body + b" ", good),
        "upper case": post(PATH, body, good.upper()),
        "of another hash": post(PATH, body, b"x-hub-signature: sha1=" + b"0" * 40),
        "two signatures": post(PATH, body, good.replace(b"=", b"=0", 1), signed(b"")),
        "two lengths": head + b"content-length: 0\r\n" + length + b"\r\n" + inner,
        "length and chunks": head + length + b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n" + inner,
        "unknown coding": head + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n" + inner,
        "bare carriage return": head + b"x: a\rb\r\ncontent-length: 0\r\n\r\n" + inner,
        "bomb": post(PATH, bomb, b"content-encoding: gzip", signed(bomb)),
        "too large": post(PATH, b" " * (1 << 20) + body, signed(b" " * (1 << 20) + body)),
        "nested": post(PATH, b"[" * 9_000, signed(b"[" * 9_000)),
        "key twice": post(PATH, b'{"n": -1, "n": -2}', signed(b'{"n": -1, "n": -2}')),
        "garbage": random.randbytes(2_000),
    }


async def _round(
    where: tuple[str, int], first: int, random: Random, connections: int
) -> tuple[Counter[str], list[Finding]]:
    """Everything at once: what attackers were answered, and what was wrong."""
    findings: list[Finding] = []
    answers: Counter[str] = Counter()

    async def attack(kind: str, request: bytes) -> None:
        answer = await once(where, request, seconds=15)
        answers[f"answered_{answer.status}"] += 1
        if 200 <= answer.status < 300:
            findings.append(Finding("I2", f"`{kind}` was answered {answer.status}"))

    async def drip(_: int) -> Answer:
        parts = [bytes((byte,)) for byte in honest(-5)[:80]]
        return await once(where, *parts, pause=0.2, seconds=15)

    async def crowd(_: int) -> Answer:
        return await once(where, post(PATH, b"{}", b"x-hub-signature-256: sha256=0"), seconds=15)

    async def be_honest(number: int) -> Answer:
        request = honest(number)
        while (answer := await once(where, request)).status != 202:
            if answer.status not in {0, 429}:
                findings.append(Finding("I1", f"an honest sender was answered {answer}"))
                break
            await asyncio.sleep(0.05)
        # The same again, by somebody who overheard it.
        again = await once(where, request)
        if again.status == 202 and not json.loads(again.body)["duplicate"]:
            findings.append(Finding("I2", f"message {number} was accepted twice"))
        return answer

    attacks = [attack(kind, request) for kind, request in hostile(random).items()]
    dripping = asyncio.ensure_future(together(100, drip))
    _, told, *_ = await asyncio.gather(
        asyncio.gather(*attacks),
        together(connections, crowd),
        together(HONEST, lambda number: be_honest(first + number)),
    )
    slow = await dripping
    for answer in (*told, *slow):
        answers[f"answered_{answer.status}"] += 1
        if 200 <= answer.status < 300:
            findings.append(Finding("I2", f"a hostile request was answered {answer.status}"))
    if any(answer.status not in {0, 408, 429} for answer in slow):
        findings.append(Finding("I10", f"headers that drip were answered {set(slow)}"))
    return answers, findings
