"""Multibase text, by `multiformats` where it is right: used at the rim only.

The library (0.3.1) pads its base8, lacks base256emoji, and takes padding where the base has none. It is imported when a
text form is first asked for, so that a command starts fast.

Source: github.com/multiformats/multibase, `multibase.csv` and `rfcs/Base256Emoji.md`.
"""

from __future__ import annotations

from .errors import InvalidArgument

_EMOJI_CODE = "🚀"
_PADDED = frozenset("cCtTMU")
"""Codes of the bases that pad with `=`."""


def encode(data: bytes, base: str) -> str:
    """`data` in the base of that name, after its code. Raises `InvalidArgument` for an unknown base."""
    if base == "base256emoji":
        return _EMOJI_CODE + "".join(_EMOJI[byte] for byte in data)
    from multiformats import multibase

    try:
        text = multibase.encode(data, base)
    except KeyError as exc:
        raise InvalidArgument(f"multibase {base!r} is not known; try base32, base36, base58btc or base64url") from exc
    return text.rstrip("=") if base == "base8" else text


def decode(text: str) -> bytes:
    """The bytes of a multibase `text`. Raises `InvalidArgument`."""
    if text.startswith(_EMOJI_CODE):
        values = [_EMOJI.find(char) for char in text[1:]]
        if -1 in values:
            raise InvalidArgument("a character is not in base256emoji")
        return bytes(values)
    if "=" in text and text[0] not in _PADDED:
        raise InvalidArgument("padding in a base that has none")
    from multiformats import multibase

    try:
        return multibase.decode(text)
    except (ValueError, KeyError) as exc:
        raise InvalidArgument(str(exc)) from exc


_EMOJI = (
    "🚀🪐☄🛰🌌🌑🌒🌓🌔🌕🌖🌗🌘🌍🌏🌎🐉☀💻🖥💾💿😂❤😍🤣😊🙏💕😭😘👍"
    "😅👏😁🔥🥰💔💖💙😢🤔😆🙄💪😉☺👌🤗💜😔😎😇🌹🤦🎉💞✌✨🤷😱😌🌸🙌😋💗"
    "💚😏💛🙂💓🤩😄😀🖤😃💯🙈👇🎶😒🤭❣😜💋👀😪😑💥🙋😞😩😡🤪👊🥳😥🤤"
    "👉💃😳✋😚😝😴🌟😬🙃🍀🌷😻😓⭐✅🥺🌈😈🤘💦✔😣🏃💐☹🎊💘😠☝😕🌺🎂🌻"
    "😐🖕💝🙊😹🗣💫💀👑🎵🤞😛🔴😤🌼😫⚽🤙☕🏆🤫👈😮🙆🍻🍃🐶💁😲🌿🧡🎁"
    "⚡🌞🎈❌✊👋😰🤨😶🤝🚶💰🍓💢🤟🙁🚨💨🤬✈🎀🍺🤓😙💟🌱😖👶🥴▶➡❓💎💸⬇"
    "😨🌚🦋😷🕺⚠🙅😟😵👎🤲🤠🤧📌🔵💅🧐🐾🍒😗🤑🌊🤯🐷☎💧😯💆👆🎤🙇🍑❄🌴"
    "💣🐸💌📍🥀🤢👅💡💩👐📸👻🤐🤮🎼🥵🚩🍎🍊👼💍📣🥂"
)
