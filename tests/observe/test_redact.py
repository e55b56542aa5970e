from __future__ import annotations

import json

import pytest

from supervisor.core.secret import Secret
from supervisor.observe.redact import Redactor
from supervisor.process.framer import MAX_LINE_BYTES, Framer


def test_registered_secret_is_masked_wherever_it_stands() -> None:
    redactor = Redactor()
    redactor.register_secret(Secret("s3cr3t-value"))
    assert redactor.text("before s3cr3t-value after,s3cr3t-value") == "before *** after,***"


def test_secret_is_masked_in_its_percent_encoded_form_too() -> None:
    redactor = Redactor()
    redactor.register_secret("p@ss/w0rd:1")
    assert redactor.text("key=p%40ss%2Fw0rd%3A1") == "key=***"


def test_longer_secret_wins_over_one_it_holds() -> None:
    redactor = Redactor()
    redactor.register_secret("abcdef-123")
    redactor.register_secret("token=abcdef-123!")
    assert redactor.text("token=abcdef-123!") == "***"


@pytest.mark.parametrize("word", ["short", "postgres", "dokploy", ""])
def test_secret_like_an_ordinary_word_is_masked_in_urls_alone(word: str) -> None:
    redactor = Redactor()
    redactor.register_secret(word)
    assert redactor.text(f"the {word} service") == f"the {word} service"
    assert redactor.text("postgresql://postgres:postgres@db/postgres") == "postgresql://postgres:***@db/postgres"


def test_password_of_any_url_is_masked() -> None:
    texts = {
        "redis://:abc@host:1/0": "redis://:***@host:1/0",
        "see postgresql://me:a%40b@h/d?x=1 and http://h/p": "see postgresql://me:***@h/d?x=1 and http://h/p",
        "http://127.0.0.1:3000/mail@host": "http://127.0.0.1:3000/mail@host",
    }
    assert {text: Redactor().text(text) for text in texts} == texts


def test_password_of_a_registered_url_is_masked_on_its_own() -> None:
    redactor = Redactor()
    redactor.register_secret("postgresql://app:rand0m%2Fpass@127.0.0.1:5432/app")
    assert redactor.text("FATAL: rand0m/pass is wrong") == "FATAL: *** is wrong"


def test_nested_values_are_masked_and_keys_kept() -> None:
    redactor = Redactor()
    redactor.register_secret("s3cr3t-value")
    value = {"a": ["x s3cr3t-value", 1, None], "s": Secret("any"), "deep": {"t": ("s3cr3t-value",)}}
    assert redactor.value(value) == {"a": ["x ***", 1, None], "s": "***", "deep": {"t": ["***"]}}


@pytest.mark.parametrize("secret", ["hunter2-with-more", 'quo"ted\\secret', "päßwörd-lang-genug"])
def test_secret_within_json_that_an_app_printed_is_masked(secret: str) -> None:
    redactor = Redactor()
    redactor.register_secret(secret)
    for plain in (True, False):
        printed = redactor.text(json.dumps({"key": secret}, ensure_ascii=plain))
        assert printed == '{"key": "***"}'


def test_lines_of_a_long_secret_are_masked_one_by_one() -> None:
    redactor = Redactor()
    body = ["MIGHAgEAMBMGByqGSM49AgEGCCqGSM49", "AwEHBG0wawIBAQQgevZzL1gdAFr88hb2"]
    redactor.register_secret("\n".join(["-----BEGIN PRIVATE KEY-----", *body, "-----END PRIVATE KEY-----"]))
    assert [redactor.text(line) for line in body] == ["***", "***"]
    assert redactor.text("-----BEGIN PRIVATE KEY-----") == "-----BEGIN PRIVATE KEY-----"


@pytest.mark.parametrize("secret", ["a-secret-of-24-characters", "postgres://user:pa55w0rd@host/database"])
def test_secret_on_the_border_of_an_overlong_line_is_masked_whole(secret: str) -> None:
    redactor = Redactor()
    redactor.register_secret(secret)
    for before in range(MAX_LINE_BYTES - len(secret) - 2, MAX_LINE_BYTES + 2):
        lines: list[str] = []
        framer = Framer(lines.append, redactor.keep_whole)
        framer.feed(b"x" * before + secret.encode() + b"y" * 100)
        framer.close()
        printed = "".join(map(redactor.text, lines))
        assert printed == "x" * before + "***" + "y" * 100
