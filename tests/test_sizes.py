import pytest

from ipcs.config import parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("512", 512),
        (" 7B ", 7),
        ("1k", 1000),
        ("1KiB", 1024),
        ("64MiB", 64 << 20),
        ("20GB", 20 * 10**9),
        ("20 G", 20 * 10**9),
        ("1.5T", 1500 * 10**9),
    ],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1", "1X", "1e9", "1 2"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError, match="is not a size; write 20GB or 512MiB"):
        parse_size(text)
