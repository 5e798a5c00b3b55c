"""The table of chips: looked up by name, and what follows from its figures."""

import pytest

from tinytale_mlx.errors import UserError
from tinytale_mlx.planning.chips import CHIPS, DEFAULT_CHIP, find_chip, working_set_of


def test_published_peaks():
    """Apple's own figures for M1 (eight cores, 2.6) and M2 (ten, 3.6), per core; and reviews' for larger ones."""
    assert find_chip("m1-8gb").teraflops / 7 * 8 == pytest.approx(2.6, abs=0.05)
    assert find_chip("m2-8gb").teraflops == pytest.approx(2.863, abs=0.001)
    assert find_chip("m2-8gb").teraflops / 8 * 10 == pytest.approx(3.6, abs=0.05)
    assert find_chip("m1-max").teraflops == pytest.approx(10.4, abs=0.3)
    assert find_chip("m2-ultra").teraflops == pytest.approx(27.2, abs=0.1)


def test_the_working_set_of_a_small_mac():
    assert CHIPS[DEFAULT_CHIP].working_set == 5461 << 20
    assert working_set_of(16 << 30) == (16 << 30) * 2 // 3
    assert working_set_of(64 << 30) == 48 << 30


@pytest.mark.parametrize(("name", "key"), [("m2-8gb", "m2-8gb"), ("M2", "m2-8gb"), ("M4 Max", "m4-max-48gb")])
def test_by_name(name: str, key: str):
    assert find_chip(name).key == key


def test_a_bad_name_lists_the_choices():
    with pytest.raises(UserError) as raised:
        find_chip("m2-9gb")
    assert "did you mean m2-8gb?" in str(raised.value)
    assert all(key in str(raised.value) for key in CHIPS)
