"""``textseg predict --jobs``: what lines may say, what is wrong with them, shares of a list."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textseg.cli.job_file import read_jobs
from textseg.cli.jobs import Job, Question, share_of
from textseg.errors import InputError
from textseg.outputs.manifest import is_complete, read_manifest

LIVER = Question(("liver",), modality="ct", threshold=0.3)


@pytest.fixture
def write_jobs(tmp_path):
    def write(*lines) -> Path:
        path = tmp_path / "jobs.jsonl"
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        path.write_text("\n".join(texts), encoding="utf-8")
        return path

    return write


def test_a_line_takes_from_the_command_line_what_it_does_not_say(write_jobs, tmp_path):
    path = write_jobs({"scan": "a.nii.gz"})
    planned = read_jobs(path, tmp_path / "out", LIVER)
    assert planned.is_batch
    assert planned.jobs == (Job(tmp_path / "a.nii.gz", "a", tmp_path / "out" / "a", LIVER),)


def test_a_line_may_say_everything_itself(write_jobs, tmp_path):
    line = {
        "scan": "/data/a.nii.gz",
        "prompts": ["spleen", "left kidney", "spleen"],
        "out": "results/first",
        "name": "first",
        "modality": "mr",
        "threshold": 0.6,
        "keep_islands": True,
        "volume_index": 2,
        "series": "1.2.3",
        "roi": "auto",
        "mirror": True,
        "instances": True,
        "least_instance_ml": 0.5,
    }
    (job,) = read_jobs(write_jobs(line), tmp_path / "out", LIVER).jobs
    assert (job.scan, job.name, job.out) == (
        Path("/data/a.nii.gz"),
        "first",
        tmp_path / "results" / "first",
    )
    assert job.question == Question(
        ("spleen", "left kidney"),
        *("mr", 0.6, True, 2, "1.2.3", "auto"),
        mirror=True,
        instances=True,
        least_instance_ml=0.5,
    )


def test_a_least_size_of_instances_needs_instances(write_jobs):
    line = {"scan": "a.nii.gz", "least_instance_ml": 0.5}
    with pytest.raises(InputError, match="Line 1: 'least_instance_ml' needs 'instances'"):
        read_jobs(write_jobs(line), None, LIVER)
    with pytest.raises(InputError, match="Line 1: 'least_instance_ml' needs 'instances'"):
        read_jobs(write_jobs({**line, "instances": False}), None, replace(LIVER, instances=True))
    (job,) = read_jobs(write_jobs(line), None, replace(LIVER, instances=True)).jobs
    assert job.question.least_instance_ml == 0.5
    # one of the command line is for those jobs that have instances
    default = replace(LIVER, instances=True, least_instance_ml=0.5)
    (job,) = read_jobs(write_jobs({"scan": "a.nii", "instances": False}), None, default).jobs
    assert not job.question.instances


def test_prompts_may_be_one_phrase_and_a_name_is_the_folder(write_jobs, tmp_path):
    (job,) = read_jobs(
        write_jobs({"scan": "a.nii", "prompts": "liver, spleen", "name": "site/7"}),
        tmp_path / "out",
        Question(()),
    ).jobs
    assert job.question.prompts == ("liver, spleen",)
    assert job.out == tmp_path / "out" / "site" / "7"


def test_without_a_place_results_go_beside_the_scan(write_jobs, tmp_path):
    (job,) = read_jobs(write_jobs({"scan": "a.nii.gz"}), None, LIVER).jobs
    assert job.out == tmp_path / "a_textseg"


def test_blank_lines_are_passed_over(write_jobs):
    path = write_jobs("\ufeff" + json.dumps({"scan": "a.nii"}), "", "  ", {"scan": "b.nii"})
    assert [job.name for job in read_jobs(path, None, LIVER).jobs] == ["a", "b"]


def test_all_bad_lines_are_told_at_once(predict, write_jobs, tmp_path, monkeypatch):
    monkeypatch.setattr("textseg.cli.answering._load", lambda *_: pytest.fail("loaded"))
    good = {"scan": "a.nii.gz", "prompts": ["liver"]}
    path = write_jobs(
        good,
        '{"scan": "b.nii.gz", ',
        {**good, "name": "c", "colour": "red", "threshold": 2},
        {"prompts": ["liver"]},
        {"scan": "d.nii.gz"},
        {**good, "name": "../e"},
        {**good, "name": "f", "prompts": ["liver", " "]},
        {**good, "name": "g", "prompts": ["liver", "spleen"], "out": "g.nii.gz"},
        {**good, "name": "h", "modality": "us"},
        "[1]",
    )
    said = predict("--jobs", path, "-o", tmp_path / "out")
    assert (said.code, said.out, len(said.lines)) == (3, "", 1)
    assert said.err.startswith(f"error[E300 unusable-input] {path}: Line 2: ")
    told = {
        2: "JSON",
        3: "'colour'",
        4: "'scan'",
        5: "'prompts'",
        6: "out of the result folder",
        7: "blank",
        8: "one file cannot hold 2 prompts",
        9: "'modality'",
        10: "object",
    }
    parts = said.err.split("Line ")[1:]
    assert [int(part.partition(":")[0]) for part in parts] == list(told)
    assert all(word in part for word, part in zip(told.values(), parts, strict=True))
    assert "'threshold'" in parts[1]
    assert not (tmp_path / "out").exists()


def test_jobs_may_not_share_a_place(write_jobs, tmp_path):
    path = write_jobs(
        {"scan": "one/a.nii.gz"},
        {"scan": "b.nii.gz"},
        {"scan": "two/a.nii.gz"},
        {"scan": "c.nii.gz", "out": "out/../out/b"},
    )
    with pytest.raises(InputError) as caught:
        read_jobs(path, tmp_path / "out", LIVER)
    assert "Line 3: " in caught.value.cause
    assert "line 1;" in caught.value.cause
    assert "Line 4: " in caught.value.cause
    assert "line 2;" in caught.value.cause


def test_the_jobs_in_the_user_guide_are_jobs(write_jobs, checkout):
    page = (checkout / "docs" / "index.md").read_text(encoding="utf-8")
    (example,) = re.findall(r'^```json\n(\{"scan".*?)^```$', page, re.MULTILINE | re.DOTALL)
    planned = read_jobs(write_jobs(example), Path("out"), LIVER)
    assert len(planned.jobs) == 4


@pytest.mark.parametrize(("content", "code"), [(None, "E301"), ("\n\n", "E304")])
def test_a_list_that_is_missing_or_empty_exits_with_3(predict, tmp_path, content, code):
    path = tmp_path / "jobs.jsonl"
    if content is not None:
        path.write_text(content)
    said = predict("--jobs", path, "liver")
    assert said.code == 3
    assert said.err.startswith(f"error[{code} ")


def test_each_job_gets_its_own_masks(predict, write_jobs, write_scan, tmp_path):
    for name in ("a", "b", "c"):
        write_scan(tmp_path / f"{name}.nii.gz")
    path = write_jobs(
        {"scan": "a.nii.gz", "prompts": "spleen"},
        {"scan": "b.nii.gz", "out": "b-liver.nii.gz", "prompts": ["liver"]},
        {"scan": "c.nii.gz"},
        {"scan": "absent.nii.gz"},
    )
    said = predict("--jobs", path, "liver", "left kidney", "-o", tmp_path / "out")
    assert said.code == 6
    assert said.lines[0].startswith(f"error[E301 missing] {tmp_path / 'absent.nii.gz'}")
    assert said.lines[1].startswith("warning: 1 of 4 scans failed")
    masks = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.nii.gz")}
    assert masks - {"a.nii.gz", "b.nii.gz", "c.nii.gz"} == {
        "out/a/spleen.nii.gz",
        "b-liver.nii.gz",
        "out/c/liver.nii.gz",
        "out/c/left_kidney.nii.gz",
    }
    assert (tmp_path / "out" / "a" / "statistics.json").exists()
    assert not (tmp_path / "b-liver.statistics.json").exists()
    assert read_manifest(tmp_path / "out" / "a").run.timings_s["read"] > 0


def test_resume_redoes_only_the_job_that_changed(predict, write_jobs, write_scan, tmp_path):
    for name in ("a", "b"):
        write_scan(tmp_path / f"{name}.nii.gz")
    lines = [{"scan": "a.nii.gz"}, {"scan": "b.nii.gz", "threshold": 0.05}]
    words = ("liver", "-o", tmp_path / "out")
    assert predict("--jobs", write_jobs(*lines), *words).code == 0
    assert predict("--jobs", write_jobs(*lines), *words).code == 5
    lines[1]["threshold"] = 0.06
    said = predict("--jobs", write_jobs(*lines), *words, "--resume")
    assert said.code == 0
    assert [line.split(":")[0] for line in said.lines] == ["kept a"]
    assert read_manifest(tmp_path / "out" / "b").run.settings["threshold"] == 0.06


def test_strict_prompts_of_all_jobs_are_refused_before_the_work(predict, write_jobs, tmp_path):
    path = write_jobs(
        {"scan": "a.nii.gz", "prompts": "kindey"}, {"scan": "b.nii.gz", "prompts": "uterus"}
    )
    said = predict("--jobs", path, "-o", tmp_path / "out", "--strict-prompts")
    assert (said.code, len(said.lines)) == (7, 1)
    assert "'kindey'" in said.err
    assert "'uterus'" in said.err


def test_a_batch_may_stop_at_the_first_failure(predict, write_jobs, write_scan, tmp_path):
    for name in ("a", "c"):
        write_scan(tmp_path / f"{name}.nii.gz")
    path = write_jobs(*({"scan": f"{name}.nii.gz"} for name in "abc"))
    said = predict("--jobs", path, "liver", "-o", tmp_path / "out", "--on-error", "stop")
    assert said.code == 6
    assert is_complete(tmp_path / "out" / "a")
    assert not (tmp_path / "out" / "c" / "textseg.json").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["liver"],
        ["-o", "out"],
        ["--jobs", "jobs.jsonl", "-o", "mask.nii.gz"],
        ["scan.nii.gz", "liver", "--part-id", "1"],
        ["scan.nii.gz", "liver", "--num-parts", "3", "--part-id", "3"],
        ["scan.nii.gz", "liver", "--num-parts", "0"],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2(textseg, words):
    said = textseg("predict", *words)
    assert (said.code, len(said.lines)) == (2, 1)
    assert said.err.startswith("error[usage] ")


def named(*places: str) -> list[Job]:
    return [Job(Path(f"{place}.nii"), place, Path(place), LIVER) for place in places]


@given(
    st.lists(st.text("abc/", min_size=1, max_size=5), unique_by=Path),
    st.integers(1, 6),
    st.randoms(use_true_random=False),
)
def test_parts_are_disjoint_and_complete_in_whatever_order_jobs_are_listed(places, num, random):
    jobs = named(*places)
    parts = [share_of(jobs, num_parts=num, part_id=i) for i in range(num)]
    together = [job for part in parts for job in part]
    assert len(together) == len(jobs)
    assert set(together) == set(jobs)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    random.shuffle(jobs)
    assert [set(share_of(jobs, num_parts=num, part_id=i)) for i in range(num)] == list(
        map(set, parts)
    )


def test_the_parts_of_a_folder_are_segmented_apart(predict, write_scan, tmp_path):
    for name in "abc":
        write_scan(tmp_path / "scans" / f"{name}.nii.gz")
    out = tmp_path / "out"
    split = ("-q", "-o", out, "--num-parts", 2, "--part-id")
    assert predict(tmp_path / "scans", "liver", *split, 0).code == 0
    assert {path.name for path in out.iterdir()} == {"a", "c"}
    assert predict(tmp_path / "scans", "liver", *split, 1).code == 0
    assert all(is_complete(out / name) for name in "abc")


def test_a_part_without_scans_is_said_and_done(predict, scan, tmp_path):
    said = predict(scan, "liver", "-o", tmp_path / "out", "--num-parts", 2, "--part-id", 1)
    assert (said.code, said.out) == (0, "")
    assert said.lines == ["no scan falls to this part"]
