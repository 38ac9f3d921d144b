"""Numbers as people write them."""

import pytest

from assistant.numerals import number


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("九千", 9000), ("9千", 9000), ("1.2萬", 12000), ("1萬2千", 12000), ("一萬兩千", 12000), ("一萬二", 12000),
        ("三千五百", 3500), ("三千五", 3500), ("一百零五", 105), ("兩百", 200), ("两万", 20000), ("十五", 15), ("十萬", 100000),
        ("一億", 10**8), ("80", 80), ("5,000", 5000), ("9k", 9000), ("1.5M", 1500000), ("two thousand", 2000),
        ("3 million", 3000000), ("a thousand", 1000), ("abc", None), ("", None), ("千", 1000),
    ],
)  # fmt: skip
def test_a_number_has_its_value(text, value):
    assert number(text) == value
