"""What is sent next, and what the broker's answers mean; no broker needed."""

from tocsin.delivery.drain import FIRST_HOLD_S, LINGER_S, Drain
from tocsin.delivery.outbox import Outbox

OK, NOBODY, DENIED, INVALID = 0x00, 0x10, 0x87, 0x90


def put(outbox: Outbox, *topics: str, retain: bool = False) -> list[int]:
    return [outbox.put(topic, b'{"a":1}', retain=retain) for topic in topics]


def send(drain: Drain, now_s: float) -> list[int]:
    """Sends what is due; packet ids are the seqs."""
    seqs = []
    for row, _ in drain.due(now_s):
        drain.sent(row, row.seq)
        seqs.append(row.seq)
    return seqs


def connected(outbox: Outbox, window: int = 100) -> Drain:
    drain = Drain(outbox)
    drain.connected(0.0, window)
    return drain


def test_no_more_than_the_brokers_window_is_in_flight(outbox):
    seqs = put(outbox, *["e"] * 20)
    drain = connected(outbox, window=8)
    assert send(drain, 0) == seqs[:5]  # three are kept for status, info and health
    drain.answered(seqs[0], OK, "", 0)
    assert send(drain, 0) == seqs[5:6]


def test_an_acknowledged_message_is_deleted_only_after_it_lingered(outbox):
    seqs = put(outbox, "e")
    drain = connected(outbox)
    send(drain, 0)
    drain.answered(seqs[0], OK, "", 0)
    drain.sweep(LINGER_S - 0.1)
    assert (outbox.depth(), drain.waiting) == (1, 0)
    drain.sweep(LINGER_S)
    assert outbox.depth() == 0


def test_a_broken_connection_sends_again_what_was_in_flight_or_lingered(outbox):
    seqs = put(outbox, "e", "e", "e")
    drain = connected(outbox)
    send(drain, 0)
    drain.answered(seqs[0], OK, "", 0)
    drain.lost()
    drain.connected(1e12, 100)
    assert [(row.seq, waited) for row, waited in drain.due(1e12) if not drain.sent(row, row.seq)] == [
        (seq, True) for seq in seqs
    ]


def test_a_clean_end_deletes_what_was_acknowledged_and_keeps_the_rest(outbox):
    seqs = put(outbox, "e", "e")
    drain = connected(outbox)
    send(drain, 0)
    drain.answered(seqs[0], OK, "", 0)
    drain.finish()
    assert [row.seq for row in outbox.pending(9)] == seqs[1:]


def test_an_event_that_nobody_listens_to_is_held_and_tried_again_one_at_a_time_with_back_off(outbox):
    seqs = put(outbox, "e", "e", "e")
    drain = connected(outbox)
    assert send(drain, 0) == seqs
    for seq in seqs:
        drain.answered(seq, NOBODY, "No matching subscribers", 0)
    assert [(hold.topic, hold.seq) for hold in drain.holds] == [("e", seqs[0])]
    later = put(outbox, "e")
    assert send(drain, FIRST_HOLD_S / 2) == []
    assert send(drain, FIRST_HOLD_S) == seqs[:1]
    drain.answered(seqs[0], NOBODY, "", FIRST_HOLD_S)
    assert send(drain, 2 * FIRST_HOLD_S) == []
    assert send(drain, 3 * FIRST_HOLD_S) == seqs[:1]
    drain.answered(seqs[0], OK, "", 3)
    assert send(drain, 3) == seqs[1:] + later
    assert drain.holds == ()


def test_it_is_settled_when_all_that_waits_is_of_held_topics(outbox):
    first, second = put(outbox, "e", "e")
    drain = connected(outbox)
    assert not drain.settled
    send(drain, 0)
    assert not drain.settled
    for seq in (first, second):
        drain.answered(seq, NOBODY, "", 0)
    assert (drain.settled, drain.waiting, len(drain.holds)) == (True, 2, 1)
    put(outbox, "other")
    assert not drain.settled


def test_nothing_is_to_be_done_of_itself_while_a_held_topics_retry_is_unanswered(outbox):
    (seq,) = put(outbox, "e")
    drain = connected(outbox)
    send(drain, 0)
    drain.answered(seq, NOBODY, "", 0)
    assert drain.next_s() == FIRST_HOLD_S
    assert send(drain, FIRST_HOLD_S) == [seq]
    assert drain.next_s() is None
    drain.answered(seq, NOBODY, "", FIRST_HOLD_S)
    assert drain.next_s() == 3 * FIRST_HOLD_S


def test_a_held_topic_is_not_due_while_the_window_is_full(outbox):
    (held,) = put(outbox, "e")
    drain = connected(outbox, window=4)  # room for one
    send(drain, 0)
    drain.answered(held, NOBODY, "", 0)
    (other,) = put(outbox, "other")
    assert send(drain, 0.5) == [other]
    assert (send(drain, FIRST_HOLD_S), drain.next_s()) == ([], None)


def test_a_retained_state_that_nobody_listens_to_is_delivered(outbox):
    seqs = put(outbox, "alarm/a", retain=True)
    drain = connected(outbox)
    send(drain, 0)
    drain.answered(seqs[0], NOBODY, "", 0)
    assert (drain.waiting, drain.holds) == (0, ())


def test_a_held_topic_does_not_hold_the_others(outbox):
    denied = put(outbox, "alarm/a", retain=True)
    drain = connected(outbox)
    send(drain, 0)
    drain.answered(denied[0], DENIED, "Not authorized", 0)
    assert drain.holds[0].reason == "0x87 Not authorized"
    assert send(drain, 0.1) == []
    others = put(outbox, "e", "alarm/b")
    assert send(drain, 0.2) == others


def test_what_was_delivered_before_a_hold_is_not_tried_again(outbox):
    first, second = put(outbox, "e", "e")
    drain = connected(outbox)
    send(drain, 0)
    drain.answered(first, OK, "", 0)
    drain.answered(second, NOBODY, "", 0)
    assert send(drain, FIRST_HOLD_S) == [second]


def test_a_message_that_no_broker_would_take_is_given_up_and_counted(outbox):
    bad, good = put(outbox, "e", "e")
    drain = connected(outbox)
    send(drain, 0)
    drain.answered(bad, INVALID, "", 0)
    drain.answered(good, OK, "", 0)
    assert (drain.refused, drain.acknowledged, drain.waiting) == (1, 1, 0)


def test_a_message_is_replayed_when_it_waited_out_a_restart_or_an_outage_and_not_otherwise(tmp_path):
    with Outbox(tmp_path / "o.db") as before:
        put(before, "e")
    with Outbox(tmp_path / "o.db") as outbox:
        put(outbox, "e")
        between = outbox.pending(9)[-1].monotonic_s
        drain = Drain(outbox)
        drain.connected(between, 100)
        assert [waited for _, waited in drain.due(between)] == [True, False]


def end_to_end(outbox: Outbox) -> Drain:
    drain = Drain(outbox, end_to_end=True)
    drain.connected(0.0, 100)
    return drain


def test_from_end_to_end_an_event_stays_until_it_is_confirmed_and_a_state_does_not(outbox):
    event, state = put(outbox, "event/alarm", "alarm/a")
    drain = end_to_end(outbox)
    for seq in send(drain, 0):
        drain.answered(seq, OK, "", 0)
    drain.sweep(1e6)
    assert [row.seq for row in outbox.pending(9)] == [event] and drain.settled and state
    drain.confirmed([(outbox.boot + 1, event), (outbox.boot, event + 100)])
    assert outbox.depth() == 1, "of another start, and not there"
    drain.confirmed([(outbox.boot, event)])
    assert outbox.depth() == 0


def test_what_is_not_confirmed_is_sent_again_when_asked_for_and_after_a_clean_end(outbox):
    seqs = put(outbox, "event/alarm", "event/audit", "event/flood")
    drain = end_to_end(outbox)
    for seq in send(drain, 0):
        drain.answered(seq, OK, "", 0)
    assert send(drain, 1) == []
    drain.confirmed([(outbox.boot, seqs[1])])
    drain.replay()
    again = send(drain, 2)
    assert again == [seqs[0], seqs[2]]
    drain.finish()
    drain.connected(3, 100)
    assert send(drain, 3) == again


def test_a_confirmation_that_overtakes_the_brokers_answer_counts(outbox):
    (seq,) = put(outbox, "event/alarm")
    drain = end_to_end(outbox)
    send(drain, 0)
    drain.confirmed([(outbox.boot, seq)])
    drain.answered(seq, OK, "", 0)
    drain.replay()
    assert send(drain, 1) == [] and outbox.depth() == 0 and drain.acknowledged == 1


def test_only_events_can_be_confirmed(outbox):
    (state,) = put(outbox, "alarm/a", retain=True)
    drain = end_to_end(outbox)
    drain.confirmed([(outbox.boot, state)])
    assert outbox.depth() == 1
