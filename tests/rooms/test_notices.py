from hypothesis import given
from hypothesis import strategies as st

from chat.protocol import codec
from chat.protocol import messages as m
from chat.rooms import effects as fx
from chat.rooms import notices
from tests import strategies

NAMES = {0: "server", 1: "ann", 2: 'b"o\\b', 3: "çem😀"}
people = st.sampled_from(sorted(NAMES))
convs = st.sampled_from(["#lobby", '@b"o\\b'])
places = {"conv": convs, "epoch": strategies.epochs, "seq": st.integers(1, 2**53), "ts": st.integers(0, 2**53)}


def encoded(place, kind, author, body, reply_to=None, cid=None):
    return notices.record(place["conv"], place["epoch"], place["seq"], place["ts"], kind, author, body, reply_to, cid, NAMES.__getitem__)


@given(
    place=st.fixed_dictionaries(places),
    author=people,
    text=strategies.texts,
    reply_to=st.none() | st.integers(1, 2**53),
    cid=st.none() | strategies.cids,
)
def test_a_message_by_hand_is_the_one_that_the_codec_reads(place, author, text, reply_to, cid):
    made = codec.decode_notice(encoded(place, "message", author, text, reply_to, cid))
    assert made == m.Message(**place, from_=NAMES[author], text=text, reply_to=reply_to, cid=cid)


@given(place=st.fixed_dictionaries(places), user=people, by=people, text=strategies.texts)
def test_other_records(place, user, by, text):
    for body, wanted in [
        ({"user": user}, m.Joined(**place, user=NAMES[user])),
        ({"user": user, "by": by, "reason": text}, m.Left(**place, user=NAMES[user], by=NAMES[by], reason=text)),
        ({"user": user}, m.Left(**place, user=NAMES[user])),
        ({"user": user, "text": text}, m.Topic(**place, user=NAMES[user], text=text)),
        ({"user": user, "role": "owner", "by": by}, m.Role(**place, user=NAMES[user], role="owner", by=NAMES[by])),
        ({"user": user, "by": by, "until": 5}, m.Banned(**place, user=NAMES[user], by=NAMES[by], until=5)),
    ]:
        assert codec.decode_notice(encoded(place, type(wanted).type, by, body)) == wanted


def test_a_deleted_text_is_empty_and_still_a_message():
    place = {"conv": "#lobby", "epoch": "abcdefgh", "seq": 1, "ts": 2}
    assert codec.decode_notice(encoded(place, "message", 1, None)) == m.Message(**place, from_="ann", text="", deleted=True)


@given(
    place=st.fixed_dictionaries(places),
    id=st.integers(-(2**53), 2**53) | st.text(strategies.LINE_CHARACTERS, max_size=16),
    cid=strategies.cids,
    dup=st.booleans(),
)
def test_an_ack_by_hand_is_the_one_that_the_codec_reads(place, id, cid, dup):
    made = codec.decode_notice(notices.ack(id, cid, place["conv"], place["epoch"], place["seq"], place["ts"], dup))
    assert made == m.Ack(id=id, cid=cid, dup=True if dup else None, **place)


def test_only_its_author_sees_the_cid():
    append = fx.Append(conv=5, kind="message", author=1, body="hi")
    item = fx.Placed(append, 5, "abcdefgh", 1, 2, "mine")
    seen = {viewer: codec.decode_notice(notices.placed("#lobby", item, NAMES.__getitem__, viewer)).cid for viewer in (0, 1, 2)}
    assert seen == {0: None, 1: "mine", 2: None}
