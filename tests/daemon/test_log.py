"""The log's forms, its places, and what is counted instead of written."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from lonc.daemon.log import Log, Sink

SEVERITIES = ("CRITICAL", "SUCCESS", "INFO", "WARNING")


def settings(file="", *, form="plain", stderr=False, debug=False):
    return SimpleNamespace(log_file=str(file), log_format=form, log_stderr=stderr, debug=debug)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "lonc.log"


@pytest.fixture
def fixed_time(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    monkeypatch.setattr(time, "time", lambda: 1062000000.25)
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def make():
    """Make a log that is closed at the end."""
    made = []

    def make(*arguments, clock=time.monotonic, **how):
        log = Log(Sink(), clock=clock)
        made.append(log)
        log.reconfigure(settings(*arguments, **how))
        return log

    yield make
    for log in made:
        log.close()
        if log._sink._fd >= 0:
            os.close(log._sink._fd)


def lines(file):
    return file.read_text().splitlines()


def texts(file):
    return [line.split("] ", 1)[1] for line in lines(file)]


def test_loncapa_form_byte_for_byte(make, file, fixed_time):
    log = make(file, form="loncapa")
    log.status = "Parent keeping the flock"
    log.log("INFO", "a")
    host = log.about("msul1")
    host.status = "msul1 Connection count: 3 Retries remaining: 5 (insecure)"
    for severity in SEVERITIES:
        host.log(severity, "some text")
    host.status = "msul1 >>> DEAD !!!! <<<"
    host.log("CRITICAL", "other text")
    status = "msul1 Connection count: 3 Retries remaining: 5 (insecure)"
    start = f"Wed Aug 27 16:00:00 2003 ({os.getpid()})"
    assert file.read_bytes().decode() == (
        f"{start} [Parent Server] [Parent keeping the flock] <font color='yellow'>INFO: a</font>\n"
        f"{start} [msul1] [{status}] <font color='red'>CRITICAL: some text</font>\n"
        f"{start} [msul1] [{status}] <font color='green'>SUCCESS: some text</font>\n"
        f"{start} [msul1] [{status}] <font color='yellow'>INFO: some text</font>\n"
        f"{start} [msul1] [{status}] <font color='blue'>WARNING: some text</font>\n"
        f"{start} [msul1] [msul1 >>> DEAD !!!! <<<] <font color='red'>CRITICAL: other text</font>\n"
    )


def test_loncapa_form_is_html(make, file):
    log = make(file, form="loncapa")
    log.log("WARNING", "<script>a & b</script>")
    assert "WARNING: &lt;script&gt;a &amp; b&lt;/script&gt;</font>" in file.read_text()


def test_plain_form(make, file, fixed_time):
    log = make(file)
    log.log("INFO", "ready")
    log.about("msul1").log("WARNING", "late")
    assert lines(file) == [
        f"2003-08-27 16:00:00 ({os.getpid()}) [lonc] INFO: ready",
        f"2003-08-27 16:00:00 ({os.getpid()}) [msul1] WARNING: late",
    ]


def test_json_form(make, file, fixed_time):
    log = make(file, form="json")
    log.log("INFO", 'a "quoted" word, and \u00fc')
    host = log.about("msul1")
    host.status = "Connected to msul1"
    host.log("SUCCESS", "b")
    common = {"time": "2003-08-27T16:00:00+0000", "pid": os.getpid()}
    assert [json.loads(line) for line in lines(file)] == [
        common
        | {"host": None, "status": "", "severity": "INFO", "text": 'a "quoted" word, and \u00fc'},
        common
        | {"host": "msul1", "status": "Connected to msul1", "severity": "SUCCESS", "text": "b"},
    ]


@pytest.mark.parametrize("form", ["plain", "json", "loncapa"])
def test_a_line_stays_a_line(make, file, form):
    make(file, form=form).log("INFO", "one\ntwo\r\x00\x1b[31m\u2028three\udcff")
    assert len(file.read_bytes().splitlines()) == 1
    assert not re.search(rb"[\x00-\x09\x0b-\x1f]", file.read_bytes())
    assert r"one\ntwo\r\x00\x1b[31m\u2028three\udcff" in file.read_text().replace("\\\\", "\\")


def test_standard_error_and_file(make, file, capfd):
    log = make(file, stderr=True)
    log.log("INFO", "both")
    log.reconfigure(settings(file))
    log.log("INFO", "file only")
    log.reconfigure(settings(stderr=True))
    log.log("INFO", "error only")
    assert texts(file) == ["INFO: both", "INFO: file only"]
    error = capfd.readouterr().err.splitlines()
    assert [line.split("] ")[1] for line in error] == ["INFO: both", "INFO: error only"]


def test_standard_error_is_where_a_new_log_writes(capfd):
    Log().log("WARNING", "not configured yet")
    assert capfd.readouterr().err.endswith("[lonc] WARNING: not configured yet\n")


@pytest.mark.parametrize("form", ["plain", "json", "loncapa"])
def test_journal_gets_priorities(tmp_path, form, fixed_time):
    """Standard error is the journal when its device and inode are those of JOURNAL_STREAM."""
    program = (
        "import os, sys; from types import SimpleNamespace\n"
        "status = os.fstat(2)\n"
        "os.environ['JOURNAL_STREAM'] = f'{status.st_dev}:{status.st_ino + int(sys.argv[2])}'\n"
        "from lonc.daemon.log import Log\n"
        "log = Log(); log.reconfigure(SimpleNamespace(log_file='', log_stderr=True,"
        " log_format=sys.argv[1], debug=False))\n"
        "for severity in ('CRITICAL', 'WARNING', 'SUCCESS', 'INFO'): log.log(severity, 'x')"
    )

    def logged(offset):
        path = tmp_path / f"err{offset}"
        with path.open("wb") as error:
            subprocess.run(
                [sys.executable, "-c", program, form, str(offset)],
                stderr=error,
                check=True,
                timeout=60,
            )
        return lines(path)

    assert [line[:3] for line in logged(0)] == ["<2>", "<4>", "<5>", "<6>"]
    assert not any(re.match("<[0-9]>", line) for line in logged(1)), "it was redirected"
    if form == "plain":
        assert logged(0)[0] == "<2>[lonc] CRITICAL: x"


def test_file_that_was_moved_away_is_made_anew(make, file):
    log = make(file)
    log.log("INFO", "first")
    descriptor = log.fileno()
    file.rename(file.with_suffix(".1"))
    log.log("INFO", "second")
    file.unlink()
    log.log("INFO", "third")
    assert texts(file.with_suffix(".1")) == ["INFO: first"]
    assert texts(file) == ["INFO: third"]
    assert log.fileno() == descriptor, "a stack trace would go elsewhere"


def test_file_that_was_truncated_goes_on(make, file):
    log = make(file)
    log.log("INFO", "first")
    os.truncate(file, 0)
    log.log("INFO", "second")
    assert texts(file) == ["INFO: second"]


def test_file_that_cannot_be_opened(make, tmp_path, capfd):
    path = tmp_path / "none" / "lonc.log"
    log = make(path)
    log.log("INFO", "one")
    log.log("INFO", "two")
    error = capfd.readouterr().err.splitlines()
    assert [line.split("] ")[1] for line in error] == [
        f"CRITICAL: log_file {path} cannot be opened: No such file or directory",
        "INFO: one",
        "INFO: two",
    ]
    path.parent.mkdir()
    log.log("INFO", "three")
    assert texts(path) == ["INFO: three"]
    assert capfd.readouterr().err == ""


def test_each_file_that_cannot_be_opened_is_told(make, tmp_path, capfd):
    paths = [tmp_path / "none" / name for name in "ab"]
    log = make(paths[0])
    log.log("INFO", "one")
    log.reconfigure(settings(paths[1]))
    log.log("INFO", "two")
    error = capfd.readouterr().err
    for path in paths:
        assert error.count(f"log_file {path} cannot be opened: No such file") == 1


def test_fifo_that_somebody_reads(make, tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        log = make(path)
        log.log("INFO", "one")
        assert os.read(reader, 1000).endswith(b"INFO: one\n")
        assert os.get_blocking(log.fileno()), "of a long line the file may take a part"
    finally:
        os.close(reader)


def test_fifo_that_nobody_reads_does_not_hold_the_daemon(serve, lond, directory):
    os.mkfifo(directory / "fifo")
    running = serve({"one": lond}, log_file=f"{directory}/fifo")
    running.wait_for(f"log_file {directory}/fifo cannot be opened: No such device or address")
    assert running.ask("one") == b"one"
    assert running.end() == 0


def test_path_that_is_no_text(make, tmp_path, capfdbinary):
    path = os.path.join(os.fsdecode(os.fsencode(tmp_path) + b"/nonexist\xff"), "x")
    make(path).log("INFO", "one")
    lines = capfdbinary.readouterr().err.splitlines()
    assert b"/nonexist\\udcff/x cannot be opened: No such file" in lines[0]
    assert lines[1].endswith(b"INFO: one")


def test_moved_file_is_used_until_the_new_one_can_be_opened(make, tmp_path, capfd):
    directory = tmp_path / "logs"
    directory.mkdir()
    log = make(directory / "lonc.log")
    log.log("INFO", "first")
    directory.rename(tmp_path / "old")
    log.log("INFO", "second")
    assert texts(tmp_path / "old" / "lonc.log") == ["INFO: first", "INFO: second"]
    assert "cannot be opened" in capfd.readouterr().err
    directory.mkdir()
    log.log("INFO", "third")
    assert texts(directory / "lonc.log") == ["INFO: third"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_full_disk_stops_nothing(make):
    make("/dev/full").log("CRITICAL", "lost")


def test_file_is_not_for_everybody(make, file):
    before = os.umask(0)
    try:
        make(file).log("INFO", "x")
    finally:
        os.umask(before)
    assert file.stat().st_mode & 0o777 == 0o640


def test_file_does_not_go_to_executed_programs(make, file):
    log = make(file)
    log.log("INFO", "x")
    assert not os.get_inheritable(log.fileno())
    file.unlink()
    log.log("INFO", "y")
    assert not os.get_inheritable(log.fileno())


def test_stack_trace_goes_to_the_file_before_its_first_line(make, file):
    log = make(file)
    os.write(log.fileno(), b"trace\n")
    log.log("INFO", "x")
    assert lines(file)[0] == "trace"


def test_descriptor_outlives_the_file(make, file):
    log = make(file)
    descriptor = log.fileno()
    log.reconfigure(settings(stderr=True))
    assert os.path.samestat(os.fstat(descriptor), os.fstat(2))
    assert log.fileno() == 2


def test_processes_share_the_file(file):
    program = (
        "import sys; from types import SimpleNamespace; from lonc.daemon.log import Log\n"
        "log = Log(); log.reconfigure(SimpleNamespace(log_file=sys.argv[1], log_stderr=False,"
        " log_format='plain', debug=False))\n"
        "for n in range(500): log.log('INFO', f'{n}:' + 'x' * 300)"
    )
    writers = [subprocess.Popen([sys.executable, "-c", program, file]) for _ in range(3)]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    assert len(lines(file)) == 1500
    assert all(re.search(r"\[lonc\] INFO: \d+:x{300}$", line) for line in lines(file))


def test_repeated_line_is_counted(make, file):
    log = make(file)
    for _ in range(3):
        log.log("WARNING", "again")
    assert texts(file) == ["WARNING: again"]
    log.log("WARNING", "other")
    log.log("INFO", "other")
    log.log("INFO", "other")
    log.flush()
    log.flush()
    assert texts(file) == [
        "WARNING: again",
        "WARNING: again (2 times more)",
        "WARNING: other",
        "INFO: other",
        "INFO: other (once more)",
    ]


def test_line_repeated_for_long_is_written_now_and_then(make, file):
    clock = SimpleNamespace(now=0.0)
    log = make(file, clock=lambda: clock.now)
    for second in range(121):
        clock.now = second
        log.log("WARNING", "again")
    assert texts(file) == [
        "WARNING: again",
        "WARNING: again (60 times more)",
        "WARNING: again (60 times more)",
    ]


def test_lines_about_two_hosts_do_not_hide_repetition(make, file):
    log = make(file)
    for _ in range(5):
        log.about("msul1").log("WARNING", "lost")
        log.about("msul2").log("WARNING", "lost")
    assert len(lines(file)) == 2
    log.close()
    assert texts(file)[2:] == ["WARNING: lost (4 times more)"] * 2


def test_last_line_is_kept_for_the_status_file(make, file):
    log = make(file)
    assert log.last == ""
    log.log("WARNING", "a\tb")
    log.about("msul1").log("INFO", "c")
    assert (log.last, log.about("msul1").last) == (r"WARNING: a\tb", "INFO: c")


def test_debug_lines_only_at_debug_level(make, file):
    log = make(file).about("msul1")
    log.debug("hidden")
    log.toggle_debug()
    log.debug("shown")
    log.toggle_debug()
    log.debug("hidden")
    assert texts(file) == [
        "SUCCESS: New debugging level for msul1 now 10",
        "INFO: -Debug- shown host = msul1",
        "SUCCESS: New debugging level for msul1 now 0",
    ]


def test_debug_setting(make, file):
    log = make(file, debug=True)
    assert log.about("msul1").debug_level == 10
    log.toggle_debug()
    log.reconfigure(settings(file, debug=True))
    assert log.debug_level == 0, "the signal's level stays while the setting does"
    log.reconfigure(settings(file, debug=False))
    log.reconfigure(settings(file, debug=True))
    assert log.debug_level == 10


def test_trace_says_where_and_not_what(make, file):
    def deep(secret):
        raise ValueError(f"cannot take {secret}")

    log = make(file)
    try:
        deep("the secret")
    except ValueError as error:
        log.trace("an error in a handler", error)
    (line,) = texts(file)
    assert line.startswith("CRITICAL: an error in a handler: ValueError at test_log.py:")
    assert line.endswith(" deep")
    assert "secret" not in line
