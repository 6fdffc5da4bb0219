"""What is logged about clients and limits: how severe, how often, and with what in it."""

from __future__ import annotations

import errno
import os

import pytest

from lonc.broker.complaints import _KINDS, Complaints, NoLog
from tests.broker.world import RecordingLog

SECOND = ("max_queue", "max_request", "max_reply", "max_buffered", "not_allowed", "accept")
MINUTE = ("cut_line", "client_timeout", "no_cipher", "bad_request")


def test_all_kinds_are_here():
    assert {*SECOND, *MINUTE} == set(_KINDS)


@pytest.mark.parametrize(
    ("kind", "interval"), [(k, 1.0) for k in SECOND] + [(k, 60.0) for k in MINUTE]
)
def test_once_in_an_interval_then_with_the_number_left_out(kind, interval):
    log = RecordingLog()
    complaints = Complaints(log)
    for now in (0.0, 0.1, interval - 0.01):
        complaints.note(now, kind, 1, "text")
    assert len(log.lines) == 1
    complaints.note(interval, kind, 1, "text")
    assert ["more since" in text for _, text in log.lines] == [False, True]
    assert "2 more" in log.lines[1][1]
    complaints.note(interval * 2, kind, 1, "text")
    assert "more since" not in log.lines[2][1], "counted anew"


def test_kinds_do_not_hide_each_other():
    log = RecordingLog()
    complaints = Complaints(log)
    for kind in (*SECOND, *MINUTE):
        complaints.note(0.0, kind, 1, "text")
    assert len(log.lines) == len(_KINDS)


@pytest.mark.parametrize(
    ("kind", "severity", "number", "text", "parts"),
    [
        ("max_queue", "WARNING", 10000, "", ["10000", "max_queue", "con_lost"]),
        ("max_request", "WARNING", 8388609, "", ["8388609", "max_request", "con_lost"]),
        ("max_reply", "WARNING", 67108865, "", ["67108865", "max_reply", "con_lost"]),
        ("max_buffered", "WARNING", 77, "", ["77", "max_buffered", "con_lost"]),
        ("cut_line", "INFO", 5, "", ["5 bytes"]),
        ("client_timeout", "INFO", 60.0, "", ["60 s", "client_timeout"]),
        ("no_cipher", "WARNING", 0, "why not", ["why not"]),
        ("bad_request", "WARNING", 0, "is odd", ["is odd"]),
        ("not_allowed", "WARNING", 0, "a process of uid 7", ["uid 7", "allow_users"]),
        ("accept", "WARNING", errno.EMFILE, "", [os.strerror(errno.EMFILE), "second"]),
    ],
)
def test_lines(kind, severity, number, text, parts):
    log = RecordingLog()
    Complaints(log).note(0.0, kind, number, text)
    [(logged, line)] = log.lines
    assert logged == severity
    assert all(part in line for part in parts), line


def test_a_text_with_braces_is_text():
    log = RecordingLog()
    Complaints(log).note(0.0, "no_cipher", 0, "{0} {number} %s")
    assert log.lines[0][1].endswith("{0} {number} %s")


def test_nobody_has_to_listen():
    Complaints(NoLog()).note(0.0, "cut_line", 1)
