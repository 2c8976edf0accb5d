"""Settings: unknown keys are named, files include others, options override files."""

import pytest

from biomechgpt.core import settings
from biomechgpt.core.settings import InputError, Settings


class Inner(Settings):
    width: int = 4
    strict: bool = False


class Outer(Settings):
    inner: Inner = Inner()
    rate: float = 1.0


def test_unknown_settings_key_is_named_with_its_path(tmp_path):
    (tmp_path / "a.yaml").write_text("inner: {widht: 3}\n")
    with pytest.raises(InputError, match=r"inner\.widht: unknown key"):
        settings.load(Outer, tmp_path / "a.yaml")


def test_overrides_and_includes(tmp_path):
    (tmp_path / "base.yaml").write_text("width: 7\n")
    (tmp_path / "a.yaml").write_text("inner: {include: base.yaml}\nrate: 2\n")
    assert settings.load(Outer, tmp_path / "a.yaml") == Outer(inner=Inner(width=7), rate=2)
    loaded = settings.load(Outer, tmp_path / "a.yaml", ["--rate=3.5"])
    assert loaded == Outer(inner=Inner(width=7), rate=3.5)
    with pytest.raises(InputError, match=r"rate: .*found 'fast'"):
        settings.load(Outer, tmp_path / "a.yaml", ["--rate", "fast"])


def test_an_option_takes_a_whole_group_from_another_file(tmp_path):
    (tmp_path / "base.yaml").write_text("width: 7\n")
    (tmp_path / "a.yaml").write_text("inner: {strict: true}\nrate: 2\n")
    other = str(tmp_path / "base.yaml")
    taken = settings.load(Outer, tmp_path / "a.yaml", ["--inner.include", other, "--rate", "3"])
    assert taken == Outer(inner=Inner(width=7), rate=3)  # `strict` was the other file's matter
    laid_over = settings.load(Outer, tmp_path / "a.yaml", ["--inner.width=8", f"--inner.include={other}"])
    assert laid_over == Outer(inner=Inner(width=8), rate=2)
    with pytest.raises(InputError, match=r"--inner\.include: expected a settings file, found nothing"):
        settings.load(Outer, None, ["--inner.include"])
    with pytest.raises(InputError, match="no such settings file"):
        settings.load(Outer, None, ["--inner.include", "absent.yaml"])


def test_a_mapping_of_another_kind_replaces_the_one_below_it():
    base = {"quantizer": {"kind": "residual", "books": 3, "size": 64}}
    assert settings.merge(base, {"quantizer": {"kind": "ema"}}) == {"quantizer": {"kind": "ema"}}
    same = {"quantizer": {"kind": "residual", "books": 2, "size": 64}}
    assert settings.merge(base, {"quantizer": {"kind": "residual", "books": 2}}) == same
    assert settings.merge(base, {"quantizer": {"books": 2}}) == same


@pytest.mark.parametrize(
    ("arguments", "strict"),
    [
        (["--inner.strict", "true"], True),
        (["--inner.strict", "false"], False),
        (["--inner.strict=true"], True),
        (["--inner.strict"], True),
        (["--no-inner.strict"], False),
        (["--inner.strict", "--inner.width", "8"], True),
    ],
)
def test_a_yes_or_no_setting_is_given_in_every_usual_way(arguments, strict):
    assert settings.load(Outer, None, arguments).inner.strict is strict


class Several(Settings):
    """Settings with several values."""

    names: list[str] | None = None
    """Some names."""
    ends: tuple[float, float] = (0.0, 1.0)
    """Both ends."""
    rate: int = 0
    """A number."""


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--names", "a", "b", "--rate", "2"], Several(names=["a", "b"], rate=2)),
        (["--names", "a"], Several(names=["a"])),
        (["--names", "a", "--names", "b"], Several(names=["a", "b"])),
        (["--names", "a,b"], Several(names=["a", "b"])),
        (["--names", '["a", "b"]'], Several(names=["a", "b"])),
        (["--names=a", "--ends", "0.5", "2"], Several(names=["a"], ends=(0.5, 2))),
    ],
)
def test_a_list_is_given_in_every_usual_way(arguments, expected):
    assert settings.load(Several, None, arguments) == expected


def test_another_word_for_a_yes_or_no_setting_is_refused():
    with pytest.raises(InputError, match=r"--inner\.strict: expected true or false, found 'perhaps'"):
        settings.load(Outer, None, ["--inner.strict=perhaps"])
