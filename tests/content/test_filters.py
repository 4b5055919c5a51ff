"""containerd's filter grammar, case by case, and on arbitrary text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipcs.content.descriptor import Info, Status, check_labels, digest_bytes, digest_text, updated
from ipcs.content.filters import info_field, parse_filters, status_field
from ipcs.errors import InvalidArgument

DIGEST = "sha256:" + "ab" * 32
INFO = Info(DIGEST, 10, 1, 2, {"containerd.io/gc.root": "now", "a": "1", "empty": "", "a.b": "two words"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True),
        ("labels.a", True),
        ("labels.absent", False),
        ("labels.empty", True),
        ("labels.a==1", True),
        ("labels.a == 1", True),
        ("labels.a==2", False),
        ("labels.a!=2", True),
        ("labels.absent!=2", True),
        ('labels."containerd.io/gc.root"==now', True),
        ('labels."containerd.io/gc.root"~=^n.w$', True),
        ("labels.a.b=='two", False),
        ('labels.a.b=="two words"', True),
        (r'labels.a.b=="two\x20words"', True),
        (r'labels.a.b=="two\u0020words"', True),
        (r'labels.a.b=="two\040words"', True),
        ("labels.a==1,labels.absent", False),
        ("labels.a==1,labels.empty", True),
        ("labels.a==1 , labels.empty", True),
        (f"digest=={DIGEST}", True),
        ("digest~=/^sha256:ab/", True),
        ("digest~=|^sha256:cd|", False),
        (r"labels.a.b~=/two\swords/", True),
        ("size==10", False),
        ("nothing", False),
    ],
)
def test_infos(text, expected):
    assert parse_filters([text], info_field)(INFO) is expected


def test_any_of_several_filters_and_none_at_all():
    assert parse_filters([], info_field)(INFO)
    assert parse_filters(["labels.absent", "labels.a"], info_field)(INFO)
    assert not parse_filters(["labels.absent", "labels.a==3"], info_field)(INFO)


def test_statuses():
    status = Status("default/1/layer-x")
    assert parse_filters(["ref==default/1/layer-x"], status_field)(status)
    assert parse_filters(["ref~=/^default\\/1\\//"], status_field)(status)
    assert not parse_filters(["ref==x"], status_field)(status)
    assert not parse_filters(["total"], status_field)(status)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a=1", "unsupported operator"),
        ("a===1", "unsupported operator"),
        ("==1", "expected a field"),
        ("a==", "expected a value"),
        ("a.", "expected a field"),
        ("a,", "expected a field"),
        ("a==1 b", "unexpected input"),
        ("a b", "expected an operator"),
        ('a=="b', "terminated"),
        ("a~=/(/", "regular expression"),
        (r'a=="\q"', "illegal escape"),
        (r'a=="\UFFFFFFFF"', "illegal escape"),
    ],
)
def test_refusals_name_the_place(text, why):
    with pytest.raises(InvalidArgument, match=why):
        parse_filters([text], info_field)


@given(st.text(alphabet='ab.,=!~"/|\\ x0(', max_size=20))
def test_arbitrary_text_parses_or_is_refused(text):
    try:
        matches = parse_filters([text], info_field)
    except InvalidArgument:
        return
    assert matches(INFO) in (True, False)


values = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"), min_size=1, max_size=20)


@given(values, values)
def test_a_quoted_label_is_found_whatever_it_holds(key, value):
    def quote(text):
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    info = Info(DIGEST, labels={key: value})
    assert parse_filters([f"labels.{quote(key)}=={quote(value)}"], info_field)(info)
    assert not parse_filters([f"labels.{quote(key)}=={quote(value + 'x')}"], info_field)(info)


@pytest.mark.parametrize("digest", ["", "sha256:12", "md5:00", "../../etc/passwd", "sha256:" + "G" * 64, DIGEST + "\n"])
def test_digests_are_checked(digest):
    with pytest.raises(InvalidArgument):
        digest_bytes(digest)


def test_digest_text_inverts():
    assert digest_text(digest_bytes(DIGEST)) == DIGEST


def test_update_with_and_without_mask():
    given_ = Info(DIGEST, labels={"a": "2", "new": "x", "gone": ""})
    assert updated(INFO, given_, [], 9).labels == {"a": "2", "new": "x"}
    assert updated(INFO, given_, ["labels"], 9).labels == {"a": "2", "new": "x"}
    masked = updated(INFO, given_, ["labels.a", "labels.a.b", "labels.empty"], 9)
    assert masked.labels == {"containerd.io/gc.root": "now", "a": "2"}
    assert (masked.created_at, masked.updated_at, masked.size) == (1, 9, 10)
    with pytest.raises(InvalidArgument, match="cannot be updated"):
        updated(INFO, given_, ["size"], 9)


def test_labels_are_bounded():
    check_labels({"k" * 96: "v" * 4000})
    with pytest.raises(InvalidArgument, match="4096"):
        check_labels({"k" * 97: "v" * 4000})
