"""The login link: once, ten minutes, and nobody else."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

from hypothesis import given
from hypothesis import strategies as st

from holdfast.limits import LOGIN_CODE_S, LOGIN_CODES_MAX, LOGIN_SESSION_S, LOGIN_SESSIONS_MAX
from holdfast.rim.clock import ManualClock
from holdfast.rim.entropy import SeededEntropy
from holdfast.web.login import Login


def make(seed: int = 1) -> tuple[Login, ManualClock]:
    clock = ManualClock()
    return Login(clock, SeededEntropy(seed)), clock


def code_of(link: str) -> str:
    return parse_qs(urlsplit(link).query)["code"][0]


def test_a_code_works_once() -> None:
    login, _ = make()
    link = login.link("http://127.0.0.1:8800/")
    assert link.startswith("http://127.0.0.1:8800/login?code=")
    token = login.enter(code_of(link))
    assert token is not None
    assert login.holds(token)
    assert login.enter(code_of(link)) is None
    assert login.holds(token), "a second try must not end the session of the first"
    assert (login.entered, login.refused) == (1, 1)


def test_a_code_ends_after_ten_minutes() -> None:
    login, clock = make()
    code = code_of(login.link("http://localhost"))
    clock.advance(LOGIN_CODE_S)
    assert login.enter(code) is None
    late = code_of(login.link("http://localhost"))
    clock.advance(LOGIN_CODE_S - 0.001)
    assert login.enter(late) is not None


def test_scaled_time_gives_a_person_ten_real_minutes() -> None:
    class Fast(ManualClock):
        @property
        def scale(self) -> float:
            return 60.0

    clock = Fast()
    login = Login(clock, SeededEntropy(1))
    code = code_of(login.link("http://localhost"))
    clock.advance(59 * LOGIN_CODE_S)
    assert login.enter(code) is not None


def test_a_stepped_wall_clock_changes_nothing() -> None:
    login, clock = make()
    code = code_of(login.link("http://localhost"))
    clock.step_wall(10 * 365 * 86_400.0)
    assert login.enter(code) is not None


def test_sessions_end() -> None:
    login, clock = make()
    token = login.enter(code_of(login.link("http://localhost")))
    other = login.enter(code_of(login.link("http://localhost")))
    assert token is not None
    assert other is not None
    login.leave(token)
    assert not login.holds(token)
    assert login.holds(other)
    clock.advance(LOGIN_SESSION_S)
    assert not login.holds(other)


def test_the_oldest_code_and_session_make_room() -> None:
    login, _ = make()
    codes = [code_of(login.link("http://localhost")) for _ in range(LOGIN_CODES_MAX + 1)]
    assert login.enter(codes[0]) is None
    tokens = [login.enter(codes[-1])]
    for _ in range(LOGIN_SESSIONS_MAX):
        tokens.append(login.enter(code_of(login.link("http://localhost"))))
    assert None not in tokens
    assert not login.holds(tokens[0] or "")
    assert login.holds(tokens[-1] or "")


@given(st.text())
def test_no_other_word_opens(guess: str) -> None:
    login, _ = make()
    code = code_of(login.link("http://localhost"))
    assert login.enter(guess) is None
    assert not login.holds(guess)
    assert login.refused == 1
    assert login.enter(code) is not None


def test_secrets_are_kept_by_hash_only() -> None:
    login, _ = make()
    code = code_of(login.link("http://localhost"))
    token = login.enter(code)
    second = code_of(login.link("http://localhost"))
    kept = repr([vars(login._codes), vars(login._sessions)])
    assert token is not None
    for secret in (code, second, token):
        assert secret not in kept
