"""Processes that share a list: each file once, and a death costs what was in its hands."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
from torch.distributed import TCPStore

import srcli
from srcli.errors import UsageError
from srcli.upscaling import sharing
from srcli.upscaling.sharing import CrewError, join_crew

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork and signals")

ROOT = str(Path(srcli.__file__).parents[1])
VARIABLES = (
    *("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
    *("TORCHELASTIC_USE_AGENT_STORE", "TORCHELASTIC_RESTART_COUNT"),
)

NURSERY = '''
"""Fork a process for each line of stdin: to import torch takes longer than most tests."""
import json, os, signal, sys, time
import srcli.upscaling.sharing
from srcli.errors import SrcliError

children = {}


def run(job):
    """Run a script as the interpreter would, with the command line's way to tell an error."""
    os.environ.update(job["env"])
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(job[name], os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    code = 0
    try:
        exec(compile(job["script"], "worker", "exec"), {"__name__": "__main__"})
    except SrcliError as error:
        print(f"error: {error}", file=sys.stderr)
        code = error.exit_code
    except SystemExit as end:
        code = end.code
    except KeyboardInterrupt:
        code = 130
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)


def ending(pid):
    """Wait for a child and return its exit code; one that hangs is killed."""
    end = time.monotonic() + 60
    while not (found := os.waitpid(pid, os.WNOHANG))[0]:
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)
    return os.waitstatus_to_exitcode(found[1])


for line in sys.stdin:
    job = json.loads(line)
    if "pid" in job:
        print(ending(job["pid"]), flush=True)
    elif pid := os.fork():
        print(pid, flush=True)
    else:
        run(job)
'''

TOOLS = """
import json, os, signal, sys, time
from pathlib import Path
from srcli.errors import ImageError, Interrupted, WeightsError
from srcli.upscaling.sharing import join_crew

RANK = int(os.environ["RANK"])


def tell(word, value=None):
    print(json.dumps([word, value]), flush=True)


def tell_report(report):
    tell("report", {
        "lines": {index: line.decode() for index, line in report.lines.items()},
        "lost": report.lost,
        "unclaimed": report.unclaimed,
        "dead": report.dead,
    })
    tell("speaks", report.speaks)


def wait_for(path):
    end = time.monotonic() + 60
    while not Path(path).exists():
        assert time.monotonic() < end, path
        time.sleep(0.01)


def line_of(index):
    return f"{index} by {RANK}".encode()


def work(crew, count):
    for index in crew.claim(count):
        tell("claimed", index)
        crew.record(index, line_of(index))
    tell_report(crew.close(count))
"""

LOST_STORE = (
    "error: the process that keeps the list of files has ended; the files that are done are kept; "
    "run the same command with --skip-existing"
)

PATIENT = {"interval": 0.1, "patience": 60.0}
IMPATIENT = {"interval": 0.05, "patience": 1.0}


class Worker:
    """A process of a crew, and what it has told so far."""

    def __init__(self, nursery, job, rank):
        self.rank, self._ask, self._job = rank, nursery, job
        self.pid = nursery(job)

    def told(self, word):
        """List the values that the process told under a word."""
        path = Path(self._job["out"])
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        pairs = [json.loads(line) for line in lines]
        return [value for told, value in pairs if told == word]

    def wait_for(self, word, times=1):
        """Wait until the process has told something so often."""
        end = time.monotonic() + 60
        while len(self.told(word)) < times:
            assert time.monotonic() < end, (self.rank, word, self.errors)
            time.sleep(0.01)

    @property
    def errors(self):
        """What the process wrote on stderr, without what torch's C++ says there."""
        path = Path(self._job["err"])
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        noise = ("[W", "[E", "Exception raised from", "frame #", "<omitting")
        return [line for line in lines if line and not line.startswith(noise)]

    @property
    def report(self):
        """The report that the process got, with numbers as keys."""
        (report,) = self.told("report")
        for name in ("lines", "lost"):
            report[name] = {int(index): value for index, value in report[name].items()}
        return report

    def send(self, number):
        """Send a signal."""
        os.kill(self.pid, number)

    def end(self):
        """Wait for the process and return its exit code."""
        return self._ask({"pid": self.pid})


@pytest.fixture(scope="module")
def nursery():
    """Return a function that lets the process that forks all others do something."""
    env = os.environ | {"PYTHONPATH": ROOT, "OMP_NUM_THREADS": "1"}
    for name in VARIABLES:
        env.pop(name, None)
    with subprocess.Popen(
        [sys.executable, "-c", NURSERY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        env=env,
    ) as process:

        def ask(job):
            process.stdin.write(json.dumps(job) + "\n")
            process.stdin.flush()
            return int(process.stdout.readline())

        yield ask
        process.stdin.close()


def free_port():
    """Find a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


@pytest.fixture
def port():
    """A port that nothing listens on."""
    return free_port()


@pytest.fixture
def agent(port):
    """Keep a store at ``port`` as ``torchrun`` does; return what the processes are told of it."""
    timeout = timedelta(seconds=30)
    store = TCPStore("localhost", port, is_master=True, wait_for_workers=False, timeout=timeout)
    yield {"TORCHELASTIC_USE_AGENT_STORE": "True"}
    del store


@pytest.fixture
def start(nursery, tmp_path, port):
    """Return a function that starts one process for each script; they end with the test."""
    workers = []

    def launch(*scripts, env=None, ranks=None, patience=PATIENT):
        begun = []
        for rank, script in zip(ranks or range(len(scripts)), scripts, strict=True):
            name = f"{len(workers)}"
            job = {
                "script": f"{TOOLS}\nHERE = Path({str(tmp_path)!r})\nTIMES = {patience}\n{script}",
                "out": str(tmp_path / f"{name}.out"),
                "err": str(tmp_path / f"{name}.err"),
                "env": {
                    "RANK": str(rank),
                    "WORLD_SIZE": str(len(scripts)),
                    "MASTER_ADDR": "localhost",
                    "MASTER_PORT": str(port),
                    **(env or {}),
                },
            }
            workers.append(Worker(nursery, job, rank))
            begun.append(workers[-1])
        return begun

    yield launch
    for worker in workers:
        try:
            worker.send(signal.SIGKILL)
        except ProcessLookupError:  # it has been waited for
            continue


@pytest.fixture
def place(monkeypatch):
    """Return a function that sets what this process is told of the others."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)

    def tell(**values):
        for name, value in values.items():
            monkeypatch.setenv(name, str(value))

    return tell


def crew_of(body):
    """Write the script of a worker whose ``body`` runs inside the crew."""
    indented = "\n".join(f"    {line}" for line in body.strip().splitlines())
    return f"with join_crew(**TIMES) as crew:\n{indented}\ntell('left')\n"


def lines_of(*workers):
    """Say what the workers recorded, by index; no two of them the same."""
    pairs = [(index, f"{index} by {one.rank}") for one in workers for index in one.told("claimed")]
    assert len(pairs) == len(dict(pairs)), "an index was given out twice"
    return dict(pairs)


WORK = crew_of("crew.agree(lambda: b'')\nwork(crew, 40)")

HOLD_SECOND = crew_of("""
for index in crew.claim(40):
    tell("claimed", index)
    if len(crew_had := globals().setdefault("had", [])) == 1:
        tell("holds", index)
        wait_for(HERE / "go")
    crew_had.append(index)
    crew.record(index, line_of(index))
tell_report(crew.close(40))
""")
"""A worker that does one file and has the second in its hands until ``go`` is there."""

AFTER_HOLDING = crew_of("""
wait_for(HERE / "holding")
work(crew, 40)
""")


# Alone


def test_alone_everything_works_without_a_network(place, monkeypatch):
    """A crew of one takes each index, reports what it recorded, and opens no connection."""
    place()
    for name in ("TCPStore", "socket"):
        monkeypatch.setattr(sharing, name, None)
    before = {*threading.enumerate()}

    with join_crew() as crew:
        assert before.issuperset(threading.enumerate())
        assert (crew.rank, crew.size, crew.local_rank, crew.leads) == (0, 1, 0, True)
        assert crew.agree(lambda: b"plan\xff\x00") == b"plan\xff\x00"
        for index in crew.claim(3):
            assert not crew.stopped
            crew.record(index, b"line of\n %d\x00\xff" % index)
        report = crew.close(3)

    assert report.lines == {index: b"line of\n %d\x00\xff" % index for index in range(3)}
    assert list(report.lines) == [0, 1, 2]
    assert (report.lost, report.unclaimed, report.dead, report.speaks) == ({}, (), (), True)


def test_alone_an_error_of_the_plan_is_its_own(place):
    """What ``make`` raises comes through as it is."""
    place()

    with pytest.raises(ValueError, match="no plan"), join_crew() as crew:
        crew.agree(lambda: int("no plan"))


def test_stopping_gives_out_no_more(place):
    """After a stop the loop ends; what was taken is recorded, the rest counts as not begun."""
    place()

    with join_crew() as crew:
        for index in crew.claim(5):
            crew.record(index, b"")
            if index == 1:
                crew.stop()
                assert crew.stopped
        report = crew.close(5)

    assert report.lines == {0: b"", 1: b""}
    assert (report.lost, report.unclaimed) == ({}, (2, 3, 4))


def test_asking_on_after_a_stop_takes_nothing(place):
    """However often the list is asked for more, what was not given out stays not begun."""
    place()

    with join_crew() as crew:
        crew.stop()
        crew.stop()
        assert [list(crew.claim(5)) for _ in range(3)] == [[], [], []]
        assert crew.close(5).unclaimed == (0, 1, 2, 3, 4)


def test_what_is_not_recorded_is_lost(place):
    """An index that was taken without a line is named, however many there are."""
    place()
    count = 2500
    missing = {0, 7, 999, 1000, 2498}

    with join_crew() as crew:
        for index in crew.claim(count):
            if index not in missing:
                crew.record(index, b"%d" % index)
        report = crew.close(count)

    assert report.lost == dict.fromkeys(missing, 0)
    assert report.lines == {index: b"%d" % index for index in set(range(count)) - missing}


def test_a_death_before_the_file_was_begun_leaves_it_unclaimed(place):
    """A process that dies between taking an index and saying so has not begun the file."""
    place()

    with join_crew() as crew:
        for index in crew.claim(2600):
            crew.record(index, b"")
            if index in {3, 2000}:
                crew._table.add("next", 1)
        report = crew.close(2600)

    assert report.unclaimed == (4, 2001)
    assert len(report.lines) == 2598


def test_an_empty_list_is_reported(place):
    """Nothing to do is no obstacle."""
    place()

    with join_crew() as crew:
        assert list(crew.claim(0)) == []
        assert crew.close(0).lines == {}


# What the environment says


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"RANK": "x"}, "RANK, LOCAL_RANK, WORLD_SIZE must be whole numbers: use torchrun"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK 2 is not below WORLD_SIZE 2: use torchrun"),
        (
            {"WORLD_SIZE": "2", "MASTER_PORT": "29500"},
            (
                "WORLD_SIZE needs MASTER_ADDR and MASTER_PORT, by which the processes find each "
                "other: use torchrun, or give them"
            ),
        ),
        (
            {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost"},
            (
                "WORLD_SIZE needs MASTER_ADDR and MASTER_PORT, by which the processes find each "
                "other: use torchrun, or give them"
            ),
        ),
        *(
            (
                {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": port},
                f"MASTER_PORT must lie in 1..65535, not {shown}: choose one",
            )
            for port, shown in (
                *((text, text) for text in ("0", "65536", "-1", "http", "1.5", "²")),
                ("1\n2", "1\\n2"),
            )
        ),
    ],
    ids=lambda value: " ".join(value.values()) if isinstance(value, dict) else "",
)
def test_variables_that_cannot_be_are_one_line(place, values, message):
    """What is missing or out of range is named, with the way out."""
    place(**values)

    with pytest.raises(UsageError) as caught, join_crew():
        pytest.fail("nobody joined")

    assert str(caught.value) == message


@pytest.mark.parametrize("address", ["localhost", "no.such.host.invalid", "x" * 70, "a..b"])
def test_a_leader_that_does_not_answer_is_one_line(place, port, address):
    """Where RANK 0 was never started, the address is named that it was looked for at."""
    place(RANK=1, WORLD_SIZE=2, MASTER_ADDR=address, MASTER_PORT=port)

    with pytest.raises(UsageError) as caught, join_crew(meeting=0.3):
        pytest.fail("nobody joined")

    text = str(caught.value)
    where = f"MASTER_ADDR {address}, MASTER_PORT {port} ("
    assert text.startswith(f"the process of RANK 0 does not answer at {where}")
    assert text.endswith("); start it, or check both")
    assert text.isprintable()


def test_missing_processes_are_named(place, port):
    """Where some of WORLD_SIZE do not come, the wait ends and says which."""
    place(RANK=0, WORLD_SIZE=3, MASTER_ADDR="localhost", MASTER_PORT=port)

    with pytest.raises(UsageError) as caught, join_crew(meeting=0.3):
        pytest.fail("nobody joined")

    assert str(caught.value) == (
        "of the 3 processes of WORLD_SIZE those with RANK 1, 2 have not come; start them all, "
        "or give a smaller WORLD_SIZE"
    )


def test_a_port_in_use_is_one_line(place, port):
    """RANK 0 says that it cannot have the port."""
    place(RANK=0, WORLD_SIZE=2, MASTER_ADDR="localhost", MASTER_PORT=port)

    with socket.create_server(("", port)), pytest.raises(UsageError) as caught, join_crew():
        pytest.fail("nobody joined")

    text = str(caught.value)
    assert text.startswith(f"MASTER_PORT {port} cannot be used (")
    assert text.endswith("); choose another")
    assert text.isprintable()


def test_another_service_at_the_port_is_one_line(place, port, monkeypatch):
    """What answers at the port but is no store is not waited for."""
    place(RANK=1, WORLD_SIZE=2, MASTER_ADDR="localhost", MASTER_PORT=port)
    monkeypatch.setattr(sharing, "_CALL_SECONDS", 0.5)

    with socket.create_server(("", port)), pytest.raises(UsageError) as caught, join_crew():
        pytest.fail("nobody joined")

    text = str(caught.value)
    assert text.startswith(f"MASTER_PORT {port} of MASTER_ADDR localhost does not fit (")
    assert text.isprintable()


def test_a_rank_given_twice_is_one_line(start, agent):
    """The second process of one RANK is refused; it would do the first one's work again."""
    first, second = start(WORK, WORK, env=agent, ranks=(1, 1))

    end = time.monotonic() + 60
    while not (first.errors or second.errors):
        assert time.monotonic() < end
        time.sleep(0.01)

    refused = first if first.errors else second
    assert refused.end() == 2
    assert refused.errors == [
        (
            "error: another process has RANK 1 already; give each a RANK of its own, and a "
            "MASTER_PORT to those that are started together"
        )
    ]


# All of them together


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("kept_by", ["the leader", "an agent"])
def test_each_file_is_one_processs(start, request, kept_by, size):
    """Every index is taken once, every line reported, in each process, and by one to the user."""
    env = request.getfixturevalue("agent") if kept_by == "an agent" else {}
    workers = start(*[WORK] * size, env=env)

    assert [worker.end() for worker in workers] == [0] * size
    assert [worker.errors for worker in workers] == [[]] * size
    expected = {"lines": lines_of(*workers), "lost": {}, "unclaimed": [], "dead": []}
    assert sorted(expected["lines"]) == list(range(40))
    assert [worker.report for worker in workers] == [expected] * size
    assert [worker.told("speaks") for worker in workers] == [[True]] + [[False]] * (size - 1)
    for worker in workers:
        assert worker.told("claimed") == sorted(worker.told("claimed"))


def test_a_faster_process_takes_more(start, tmp_path):
    """While one process is at a long file, the other one does all the rest."""
    slow = crew_of("""
for index in crew.claim(40):
    tell("claimed", index)
    (HERE / "holding").touch()
    wait_for(HERE / "go")
    crew.record(index, line_of(index))
tell_report(crew.close(40))
""")
    fast = crew_of("""
wait_for(HERE / "holding")
for index in crew.claim(40):
    tell("claimed", index)
    crew.record(index, line_of(index))
(HERE / "go").touch()
tell_report(crew.close(40))
""")
    workers = start(slow, fast)

    assert [worker.end() for worker in workers] == [0, 0]
    assert [worker.told("claimed") for worker in workers] == [[0], list(range(1, 40))]
    assert workers[0].report["lines"] == lines_of(*workers)
    assert (tmp_path / "go").exists()


def test_all_agree_on_what_the_leader_made(start):
    """What is agreed on arrives whole, of any size and any bytes, one thing after the other."""
    made = "made = [os.urandom(4_500_000), b'', b'\\x00\\xff' * 3]\n"
    tell = "tell('agreed', [hashlib.sha256(one).hexdigest() for one in seen])"
    workers = start(
        *[
            "import hashlib\n"
            + crew_of(f"{made}seen = [crew.agree(lambda: m) for m in made]\n{tell}")
        ]
        * 3
    )

    assert [worker.end() for worker in workers] == [0, 0, 0]
    first, *others = [worker.told("agreed") for worker in workers]
    assert others == [first, first]
    assert len({*first[0]}) == 3


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ("WeightsError('no weights')", 4),
        ("Interrupted('stopped', 15)", 143),
        ("KeyboardInterrupt", 130),
        ("SystemExit(9)", 9),
    ],
)
def test_a_plan_that_cannot_be_made_ends_all(start, error, code):
    """The leader says why; the others end with its exit code and without a word."""
    script = f"""
def fail():
    raise {error}
{crew_of("crew.agree(fail)")}
"""
    workers = start(script, script, script)

    codes = [worker.end() for worker in workers]
    assert codes[1:] == [code, code]
    assert [worker.errors for worker in workers[1:]] == [[], []]
    if "Weights" in error:
        assert codes[0] == code
        assert workers[0].errors == ["error: no weights"]


def test_stopping_stops_all(start):
    """After one process has stopped the work nobody takes more, and all know what is left."""
    stopper = crew_of("""
wait_for(HERE / "holding")
for index in crew.claim(40):
    tell("claimed", index)
    crew.record(index, line_of(index))
    if index == 5:
        crew.stop()
        (HERE / "go").touch()
tell_report(crew.close(40))
""")
    holder = crew_of("""
for index in crew.claim(40):
    tell("claimed", index)
    (HERE / "holding").touch()
    wait_for(HERE / "go")
    tell("stopped", crew.stopped)
    crew.record(index, line_of(index))
tell_report(crew.close(40))
""")
    workers = start(stopper, holder)

    assert [worker.end() for worker in workers] == [0, 0]
    assert workers[1].told("stopped") == [True]
    expected = {
        "lines": lines_of(*workers),
        "lost": {},
        "unclaimed": list(range(6, 40)),
        "dead": [],
    }
    assert [worker.report for worker in workers] == [expected, expected]
    assert sorted(expected["lines"]) == list(range(6))


def test_whoever_speaks_is_waited_for(start, agent, tmp_path):
    """No process leaves before the one that speaks: ``torchrun`` would end that one too."""
    body = """
report = crew.close(0)
if report.speaks:
    time.sleep(0.5)
    (HERE / "spoken").touch()
"""
    speaker, other = start(
        crew_of(body), crew_of(body) + "tell('spoken', (HERE / 'spoken').exists())", env=agent
    )

    assert (speaker.end(), other.end()) == (0, 0)
    assert other.told("spoken") == [True]
    assert (tmp_path / "spoken").exists()


@pytest.mark.parametrize("kept_by", ["the leader", "an agent"])
def test_one_crew_after_the_other(start, request, kept_by):
    """Processes that share a second list begin it anew."""
    env = request.getfixturevalue("agent") if kept_by == "an agent" else {}
    workers = start(WORK + WORK, WORK + WORK, env=env)

    assert [worker.end() for worker in workers] == [0, 0]
    taken = sorted(index for worker in workers for index in worker.told("claimed"))
    assert taken == sorted([*range(40), *range(40)])


def test_a_restart_begins_anew(start, agent):
    """Processes that ``torchrun`` started again do not see what the first ones took."""
    for restart in range(2):
        env = agent | {"TORCHELASTIC_RESTART_COUNT": str(restart)}
        workers = start(WORK, WORK, env=env)

        assert [worker.end() for worker in workers] == [0, 0]
        assert sorted(lines_of(*workers)) == list(range(40))


# Deaths


def test_a_killed_process_costs_the_file_in_its_hands(start, tmp_path):
    """Of a process killed at its second file the first is kept, and the others do the rest."""
    holder, *others = [HOLD_SECOND, AFTER_HOLDING, AFTER_HOLDING]
    first, dying, third = start(others[0], holder, others[1], patience=IMPATIENT)
    dying.wait_for("holds")
    dying.send(signal.SIGKILL)
    (tmp_path / "holding").touch()

    assert (first.end(), dying.end(), third.end()) == (0, -signal.SIGKILL, 0)
    (lost,) = dying.told("holds")
    expected = lines_of(first, dying, third)
    del expected[lost]
    assert sorted([*expected, lost]) == list(range(40))
    for worker in (first, third):
        assert worker.report == {
            "lines": expected,
            "lost": {lost: 1},
            "unclaimed": [],
            "dead": [1],
        }
        assert worker.errors == []
    assert (first.told("speaks"), third.told("speaks")) == ([True], [False])


def test_the_leaders_death_is_survived_where_an_agent_keeps_the_store(start, agent, tmp_path):
    """After the plan is made the leader is a process like any other; the next one speaks."""
    leader, second, third = start(
        HOLD_SECOND, AFTER_HOLDING, AFTER_HOLDING, env=agent, patience=IMPATIENT
    )
    leader.wait_for("holds")
    leader.send(signal.SIGKILL)
    (tmp_path / "holding").touch()

    assert (leader.end(), second.end(), third.end()) == (-signal.SIGKILL, 0, 0)
    assert (second.told("speaks"), third.told("speaks")) == ([True], [False])
    assert second.report == third.report
    assert second.report["lost"] == {leader.told("holds")[0]: 0}
    assert second.report["dead"] == [0]


def test_the_end_of_the_store_is_one_line(start, tmp_path):
    """If the leader that keeps the store is killed, the others say what to do and end."""
    leader, other = start(HOLD_SECOND, AFTER_HOLDING)
    leader.wait_for("holds")
    leader.send(signal.SIGKILL)
    leader.end()
    (tmp_path / "holding").touch()

    assert other.end() == CrewError.exit_code == 1
    assert other.errors == [LOST_STORE]


def test_a_leader_that_dies_over_the_plan_is_one_line(start, agent):
    """Who waits for the plan of a dead leader does so no longer than its patience."""
    dying = crew_of("crew.agree(lambda: tell('making') or time.sleep(600))")
    leader, other = start(dying, WORK, env=agent, patience=IMPATIENT)
    leader.wait_for("making")
    leader.send(signal.SIGKILL)

    assert other.end() == 1
    assert other.errors == [
        (
            "error: the process of RANK 0 has ended before it had made the list of files; check "
            "what it said, and run the same command again"
        )
    ]


def test_a_process_that_fails_is_not_waited_for(start, agent):
    """An error ends its process alone, at once known to the others as dead."""
    failing = crew_of("""
for index in crew.claim(40):
    tell("claimed", index)
    (HERE / "holding").touch()
    raise WeightsError("damaged")
""")
    first, failed = start(AFTER_HOLDING, failing, env=agent)

    assert (first.end(), failed.end()) == (0, 4)
    assert failed.errors == ["error: damaged"]
    lost = dict.fromkeys(failed.told("claimed"), 1)
    assert (first.report["lost"], first.report["dead"]) == (lost, [1])
    assert len(first.report["lines"]) == 40 - len(lost)


def test_a_leader_that_fails_lets_the_others_finish(start, tmp_path):
    """The store stays until the others have closed; they take no more files and report."""
    failing = crew_of("""
wait_for(HERE / "holding")
for index in crew.claim(40):
    (HERE / "go").touch()
    raise WeightsError("damaged")
""")
    holder = crew_of("""
for index in crew.claim(40):
    tell("claimed", index)
    (HERE / "holding").touch()
    wait_for(HERE / "go")
    while not crew.stopped:
        time.sleep(0.01)
    crew.record(index, line_of(index))
tell_report(crew.close(40))
""")
    leader, other = start(failing, holder)

    assert (leader.end(), other.end()) == (4, 0)
    assert leader.errors == ["error: damaged"]
    assert other.report == {
        "lines": {0: "0 by 1"},
        "lost": {1: 0},
        "unclaimed": list(range(2, 40)),
        "dead": [0],
    }
    assert other.told("speaks") == [True]
    assert (tmp_path / "go").exists()


@pytest.mark.parametrize("same", [True, False], ids=["same", "different"])
def test_an_error_that_all_meet_is_told_once(start, same):
    """Two errors of one text are one line on the terminal; each process has the exit code."""
    text = "'damaged'" if same else "f'damaged {RANK}'"
    workers = start(*[crew_of(f"raise WeightsError({text})")] * 3)

    assert [worker.end() for worker in workers] == [4, 4, 4]
    told = sorted(line for worker in workers for line in worker.errors)
    assert told == (["error: damaged"] if same else [f"error: damaged {rank}" for rank in range(3)])


@pytest.mark.parametrize("kept_by", ["the leader", "an agent"])
def test_a_wait_for_the_others_can_be_interrupted(start, request, kept_by, tmp_path):
    """Ctrl-C ends a process that has no more to do; another one speaks for the rest."""
    env = request.getfixturevalue("agent") if kept_by == "an agent" else {}
    waiting = crew_of("tell('waits')\ncrew.close(40)")
    ranks = (0, 1) if kept_by == "an agent" else (1, 0)
    waiter, holder = start(waiting, HOLD_SECOND, env=env, ranks=ranks)
    holder.wait_for("holds")
    waiter.wait_for("waits")
    waiter.send(signal.SIGINT)

    assert waiter.end() == 130
    (tmp_path / "go").touch()
    assert holder.end() == 0
    assert holder.report["dead"] == [waiter.rank]
    assert len(holder.report["lines"]) == 40
    assert holder.told("speaks") == [True]


def test_a_death_while_waiting_leaves_another_to_speak(start, agent, tmp_path):
    """A process that had closed and is killed before all have does not leave them speechless."""
    waiting = crew_of("tell('waits')\ncrew.close(40)")
    waiter, holder = start(waiting, HOLD_SECOND, env=agent, patience=IMPATIENT)
    holder.wait_for("holds")
    waiter.wait_for("waits")
    time.sleep(2 * IMPATIENT["interval"])
    waiter.send(signal.SIGKILL)
    (tmp_path / "go").touch()

    assert (waiter.end(), holder.end()) == (-signal.SIGKILL, 0)
    assert holder.report["dead"] == [0]
    assert holder.told("speaks") == [True]
    assert len(holder.report["lines"]) == 40


def test_an_interrupted_leader_does_not_keep_the_store_for_ever(start, tmp_path):
    """Ctrl-C for the leader alone ends it in seconds, and the others with one line."""
    hasty = "from srcli import sharing\nsharing._GRACE_SECONDS = 0.3\n"
    leader, other = start(hasty + crew_of("tell('waits')\ncrew.close(40)"), HOLD_SECOND)
    other.wait_for("holds")
    leader.wait_for("waits")
    leader.send(signal.SIGINT)

    assert leader.end() == 130
    (tmp_path / "go").touch()
    assert other.end() == 1
    assert other.errors == [LOST_STORE]


@pytest.mark.parametrize("settled", [True, False], ids=["too late", "in time"])
def test_a_process_that_was_only_slow_may_come_back(start, agent, tmp_path, settled):
    """What it records before the report counts; afterwards it is lost, and nobody crashes."""
    first, slow, third = start(
        AFTER_HOLDING,
        HOLD_SECOND,
        crew_of("wait_for(HERE / 'holding')\nwait_for(HERE / 'end')\nwork(crew, 40)"),
        env=agent,
        patience=IMPATIENT,
    )
    slow.wait_for("holds")
    slow.send(signal.SIGSTOP)
    (tmp_path / "holding").touch()
    (tmp_path / "go").touch()
    first.wait_for("claimed", 38)
    if settled:
        (tmp_path / "end").touch()
        assert (first.end(), third.end()) == (0, 0)
        slow.send(signal.SIGCONT)
    else:
        time.sleep(2 * IMPATIENT["patience"])
        slow.send(signal.SIGCONT)
        slow.wait_for("claimed", 2)
        time.sleep(10 * IMPATIENT["interval"])  # until the others have heard it again
        (tmp_path / "end").touch()

    assert slow.end() == 0
    assert slow.errors == []
    lost = slow.told("holds")[0]
    expected = ({lost: 1}, [1]) if settled else ({}, [])
    assert (slow.report["lost"], slow.report["dead"]) == expected
    assert len(slow.report["lines"]) == 40 - len(expected[0])
    assert slow.told("speaks") == [False]
    if not settled:
        assert (first.end(), third.end()) == (0, 0)
    assert first.report == third.report == slow.report


def test_patience_is_counted_in_looks():
    """Only looks of its own make a process lose patience: none, while all were suspended."""
    pulse = sharing._Pulse(0, 3, interval=1.0, patience=3.0)

    pulse._look([b"1", b"1", b"1"])
    for beat in (b"2", b"3"):
        pulse._look([beat, b"1", b"1"])
    assert pulse.silent == set()
    pulse._look([b"4", b"2", b"1"])
    assert pulse.silent == {2}
    pulse._look([b"5", b"2", b"2"])
    assert pulse.silent == set()


# Interpreters of their own

SCRIPT = """
import os, sys
from pathlib import Path
from srcli.upscaling.sharing import join_crew

with join_crew() as crew:
    count = int(crew.agree(lambda: b"500"))
    for index in crew.claim(count):
        crew.record(index, b"%d" % (index * index))
    report = crew.close(count)
    right = report.lines == {index: b"%d" % (index * index) for index in range(count)}
    text = f"{crew.local_rank} of {crew.size}: {report.speaks} {right}"
    (Path(sys.argv[1]) / str(crew.rank)).write_text(text)
"""


@pytest.mark.slow
def test_torchrun_starts_a_crew(tmp_path):
    """Under ``torchrun``, whose agent keeps the store, the processes share a list and end well."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    done = subprocess.run(
        [sys.executable, *torchrun, script, tmp_path],
        capture_output=True,
        check=False,
        encoding="utf-8",
        timeout=120,
        env=os.environ | {"PYTHONPATH": ROOT, "OMP_NUM_THREADS": "1"},
    )

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "0").read_text(encoding="utf-8") == "0 of 2: True True"
    assert (tmp_path / "1").read_text(encoding="utf-8") == "1 of 2: False True"


@pytest.mark.slow
def test_processes_need_no_torchrun(tmp_path, port):
    """Anything that sets the variables starts a crew; the interpreters end without a word."""
    variables = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, tmp_path],
            stderr=subprocess.PIPE,
            encoding="utf-8",
            env=os.environ | {"PYTHONPATH": ROOT, "RANK": str(rank), **variables},
        )
        for rank in range(2)
    ]

    told = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told
    assert told == ["", ""]
    assert (tmp_path / "0").read_text(encoding="utf-8") == "0 of 2: True True"
    assert (tmp_path / "1").read_text(encoding="utf-8") == "0 of 2: False True"
