"""Texts and outcomes without secrets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace.model.outcome import Cause, Crashed, Failure, Returned, TimedOut
from headrace.model.redaction import MAX_KEPT, MIN_CHARACTERS, Redaction, blotted

VALUES = st.text(min_size=MIN_CHARACTERS, max_size=30).filter(lambda text: text.strip() == text)


def test_a_value_is_replaced_by_its_name_wherever_it_stands() -> None:
    blots = Redaction()
    assert blots.blot("nothing is known") == "nothing is known"
    blots.add("STRIPE", "sk_live_42")
    blots.add("BANK", "a.b+c*")
    assert blots.blot("sk_live_42/a.b+c*/sk_live_42") == (
        "[secret STRIPE]/[secret BANK]/[secret STRIPE]"
    )
    assert blots.blot("a_b+cc") == "a_b+cc"


@given(VALUES, st.text(max_size=20), st.text(max_size=20))
def test_no_value_is_left_in_any_text(value: str, before: str, after: str) -> None:
    blots = Redaction()
    blots.add("IT", value)
    assert value not in blots.blot(f"{before}{value}{after}").replace("[secret IT]", "\0")


def test_the_longer_of_two_values_is_found_first() -> None:
    blots = Redaction()
    blots.add("SHORT", "abcd")
    blots.add("LONG", "abcdefgh")
    assert blots.blot("abcdefgh abcd") == "[secret LONG] [secret SHORT]"


def test_a_value_of_many_lines_is_known_by_each_of_them_and_as_python_shows_it() -> None:
    blots = Redaction()
    blots.add("PEM", "-----BEGIN\nMIIBOgIB\n-----END")
    assert blots.blot("MIIBOgIB") == "[secret PEM]"
    assert blots.blot(repr("-----BEGIN\nMIIBOgIB\n-----END")) == "'[secret PEM]'"


def test_values_that_would_be_found_everywhere_are_left() -> None:
    blots = Redaction()
    blots.add("TINY", "abc")
    assert blots.blot("abc") == "abc"


def test_the_values_that_a_secret_had_are_remembered_up_to_a_bound() -> None:
    blots = Redaction()
    for number in range(MAX_KEPT + 1):
        blots.add("KEY", f"value-{number}")
    assert blots.blot("value-0") == "value-0"
    assert blots.blot("value-1") == blots.blot(f"value-{MAX_KEPT}") == "[secret KEY]"


def test_an_outcome_is_blotted_in_all_it_says_of_failures_and_in_nothing_else() -> None:
    blots = Redaction()
    blots.add("KEY", "hidden")
    bad = Cause("hiddenError", "a hidden message", "line of hidden")
    good = Cause("[secret KEY]Error", "a [secret KEY] message", "line of [secret KEY]")
    assert blotted(Crashed(bad), blots.blot) == Crashed(good)
    assert blotted(TimedOut(bad), blots.blot) == TimedOut(good)
    assert blotted(Returned(error=bad), blots.blot) == Returned(error=good)
    failed = Returned(failures=(Failure(3, bad),), result=b"hidden")
    assert blotted(failed, blots.blot) == Returned(failures=(Failure(3, good),), result=b"hidden")
    fine = Returned(result=b"hidden")
    assert blotted(fine, blots.blot) is fine
