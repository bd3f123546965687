"""Several processes that split one list of files: who does which, and what each reports."""

from pathlib import Path

import pytest
from command_runs import lines_of, run_upscale
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from run_files import contents, refusal

from srcli.errors import UsageError
from srcli.upscaling import share as sharing
from srcli.upscaling.config import Job
from srcli.upscaling.share import Share, deal


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, (0, 1, 0)),
        ({"RANK": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}, (2, 4, 1)),
        ({"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "3"}, (5, 8, 3)),
        # A batch script runs once, whatever the number of tasks it may start.
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, (0, 1, 0)),
        # torchrun inside a job step of one task a machine.
        (
            {"RANK": "3", "WORLD_SIZE": "8", "SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"},
            (3, 8, 0),
        ),
    ],
)
def test_the_launcher_says_which_process_this_is(environment, expected):
    """RANK and WORLD_SIZE come first, then what srun sets for a job step."""
    share = Share.from_environment(environment)

    assert (share.rank, share.world_size, share.local_rank) == expected


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"RANK": "0"}, "WORLD_SIZE is not set; set it as well, or neither of the two"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK must be a whole number from 0 on, not '-1'"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "WORLD_SIZE must be a whole number from 1 on, not '0'"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK must be less than WORLD_SIZE 2, not 2; count …"),
    ],
)
def test_values_that_cannot_be_meant_are_refused(environment, message):
    """One line names the variable and its value."""
    found = refusal(lambda: Share.from_environment(environment), UsageError)
    assert found.startswith(message.removesuffix("…"))


def shares(jobs, world_size):
    """What each of the processes is dealt."""
    return [deal(jobs, Share(rank=rank, world_size=world_size)) for rank in range(world_size)]


@given(sizes=st.lists(st.integers(0, 1000), max_size=40), world_size=st.integers(1, 7))
def test_each_file_is_done_once_and_shares_are_even(sizes, world_size):
    """No process has more pixels than another by more than the largest picture."""
    jobs = [Job(Path(f"{index}.png"), Path(f"out/{index}.png"), "") for index in range(len(sizes))]
    pixels = {job: max(1, size) for job, size in zip(jobs, sizes, strict=True)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharing, "_pixels", lambda job, _most: pixels[job])
        dealt = shares(jobs, world_size)

    assert sorted((job for share in dealt for job in share), key=str) == sorted(jobs, key=str)
    loads = [sum(pixels[job] for job in share) for share in dealt]
    assert max(loads) - min(loads) <= max(pixels.values(), default=0)
    assert all(share == [job for job in jobs if job in share] for share in dealt), "plan's order"


@pytest.mark.usefixtures("here")
def test_the_order_of_the_plan_does_not_matter():
    """Equal sizes are distinguished by their paths; the pixels of all frames count."""
    for name, size in (("a.png", 8), ("b.png", 8), ("c.png", 8), ("large.jpg", 90)):
        Image.new("RGB", (size, size)).save(name)
    frames = [Image.new("L", (60, 60), level) for level in (0, 90, 200, 255)]
    frames[0].save("moving.gif", save_all=True, append_images=frames[1:])
    Path("broken.png").write_bytes(b"broken")
    names = ("moving.gif", "a.png", "large.jpg", "broken.png", "b.png", "c.png", "gone.png")
    jobs = [Job(Path(name), Path("out", name), name) for name in names]

    first, second = shares(jobs, 2)

    assert [set(share) for share in shares(jobs[::-1], 2)] == [set(first), set(second)]
    assert [job.entry for job in first] == ["moving.gif"]
    assert len(second) == len(names) - 1


def run(rank, *arguments, data=None):
    """Run ``srcli upscale`` as one of two processes, one after the other."""
    return run_upscale(*arguments, env={"RANK": str(rank), "WORLD_SIZE": "2"}, input=data)


@pytest.mark.usefixtures("desk")
def test_processes_split_a_folder_and_a_second_start_does_what_a_dead_one_left():
    """Each prints its own files and a summary of its own; the exit code is its own too."""
    names = ["a.png", "b.jpg", "sub/c.png"]
    command = ["in", "-r", "-o", "out", "--json", "--failed-list", "failed.txt"]
    command.append("--skip-existing")
    done = lines_of(run(0, *command))[1]["done"]  # nothing comes of the other one
    assert 0 < done < len(names)

    results = [run(rank, *command) for rank in range(2)]

    files, summaries = zip(*map(lines_of, results), strict=True)
    entries = [file["entry"] for share in files for file in share]
    assert sorted(entries) == sorted(f"in/./{name}" for name in (*names, "broken.png"))
    assert [(one["rank"], one["world_size"]) for one in summaries] == [(0, 2), (1, 2)]
    assert sum(one["skipped"] for one in summaries) == done
    assert sum(one["done"] for one in summaries) == len(names) - done
    assert sorted(result.exit_code for result in results) == [0, 1]
    assert [result.exit_code for result in results] == [one["exit_code"] for one in summaries]
    assert sorted(contents(Path("out"))) == names
    lists = [Path(f"failed.txt.{rank}").read_text() for rank in range(2)]
    assert sorted(lists) == ["", "in/./broken.png\n"]
    assert not Path("failed.txt").exists()


@pytest.mark.usefixtures("desk")
def test_stdin_goes_to_the_first_process():
    """The others do not touch it; a list on stdin cannot be split."""
    data = Path("in/a.png").read_bytes()

    both = [run(rank, "-", "-o", "b.png", "--json", data=data) for rank in range(2)]

    assert [lines_of(one)[1]["done"] for one in both] == [1, 0]
    listed = run(0, "@-", data=b"in/a.png\n").stderr
    assert listed.startswith("error: @- reads stdin, which several processes cannot share; give")
