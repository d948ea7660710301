"""The quality benchmark on short videos with the model that ships."""

import json

import pytest
from typer.testing import CliRunner

from retake_edge.bench.quality.report import kind_table, loss_table, pooled, select
from retake_edge.bench.quality.run import QualitySettings, answer
from retake_edge.bench.quality.videos import QUESTIONS_PER_VIDEO, group, make_video
from retake_edge.bench.tables import run_tables
from retake_edge.cli import app
from retake_edge.errors import ConfigError

POLICIES = "none,coverage,random,uniform-frames"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quality")
    arguments = [
        "bench",
        "quality",
        "--frames",
        "32",
        "--keep-ratio",
        "1,0.25",
        "--questions",
        "21",
    ]
    command = [*arguments, "--policies", POLICIES, "--out", str(folder / "run.json"), "--json"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["retake-edge", *command])
        done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout), folder


def test_the_run_file_is_what_json_prints(run):
    document, folder = run
    assert json.loads((folder / "run.json").read_text()) == document
    assert document["what"] == "quality" and document["machine"]["n_cores"] >= 1
    assert len(document["model"]["model"]["sha256"]) == 64


def test_a_run_file_names_no_folder_of_the_machine(run):
    document, folder = run
    assert str(folder) not in json.dumps(document)
    assert "--out run.json" in document["command"]


def test_every_policy_answers_every_question(run):
    document, _ = run
    found = [(cell["policy"], cell["keep_ratio"]) for cell in document["cells"]]
    assert found == [("none", 1.0), ("coverage", 0.25), ("random", 0.25), ("uniform-frames", 0.25)]
    n = len(document["questions"]["32"]["kind"])
    assert all(len(cell["right"]) == n for cell in document["cells"])
    assert all(pooled([cell], "all").n == n for cell in document["cells"])


def test_all_compressing_policies_spend_the_same_cells(run):
    document, _ = run
    full, *others = (cell["kv_cells"] for cell in document["cells"])
    assert full == 16 * 17  # pairs of frames, 16 vision tokens and a clock token each
    assert others[0] == others[1] == 16 * 4 + 16
    assert abs(others[2] - others[0]) <= 17


def test_the_full_cache_keeps_every_token_of_every_card(run):
    document, _ = run
    (full,) = select(document, "none", 1.0)
    assert set(full["card_tokens_by_layer"]) == {16.0}
    (random,) = select(document, "random", 0.25)
    assert all(tokens < 16 for tokens in random["card_tokens_by_layer"])


def test_the_model_that_ships_answers_with_the_full_cache(run):
    document, _ = run
    assert pooled(select(document, "none", 1.0), "all").value >= 0.7


def test_tables_are_made_from_the_run_file_alone(run):
    document, _ = run
    tables = run_tables(json.loads(json.dumps(document)))
    assert all(f"| {name} |" in tables for name in POLICIES.split(","))


def test_losses_are_the_differences_of_the_shares(run):
    document, _ = run
    (row,) = loss_table(document, ["random"]).splitlines()[2:]
    full, random = (pooled(select(document, *r), "all") for r in (("none", 1.0), ("random", 0.25)))
    shown = float(row.split("|")[-2].split("(")[0])
    assert shown == pytest.approx(100 * (full.value - random.value), abs=0.051)


def test_every_kind_is_counted_with_the_full_cache_and_compressed(run):
    document, _ = run
    rows = {
        line.split("|")[1].strip(): line for line in kind_table(document, "random").splitlines()
    }
    kinds = document["questions"]["32"]["kind"]
    for kind in set(kinds):
        counts, n = rows[kind].split("|")[2].split(" of ")
        cells = (select(document, *r)[0] for r in (("none", 1.0), ("random", 0.25)))
        assert [int(c) for c in counts.split()] == [c["kinds"][kind]["right"] for c in cells]
        assert int(n) == kinds.count(kind)


def test_the_same_seed_gives_the_same_answers(run, tmp_path):
    document, _ = run
    arguments = ["bench", "quality", "--frames", "32", "--keep-ratio", "0.25", "--questions", "21"]
    done = CliRunner().invoke(app, [*arguments, "--policies", "random", "--json"])
    again = json.loads(done.stdout)
    assert again["questions"] == document["questions"]
    (before,), (after,) = (select(d, "random", 0.25) for d in (document, again))
    assert before["right"] == after["right"]


def test_with_absent_each_question_is_asked_once_and_answered_alike(run, monkeypatch):
    document, _ = run
    asked = []

    def counted(replayed, manifest, question, attention=None):
        asked.append(question)
        return answer(replayed, manifest, question, attention)

    monkeypatch.setattr("retake_edge.bench.quality.run.answer", counted)
    arguments = ["bench", "quality", "--frames", "32", "--keep-ratio", "0.25", "--questions", "21"]
    done = CliRunner().invoke(app, [*arguments, "--policies", "random", "--absent", "--json"])
    again = json.loads(done.stdout)
    for policy, keep_ratio in (("none", 1.0), ("random", 0.25)):
        (before,), (after,) = (select(d, policy, keep_ratio) for d in (document, again))
        assert before["right"] == after["right"]
    present = [question for question in asked if question.answer]
    assert len(present) == 2 * len(again["questions"]["32"]["kind"]) < len(asked)


def test_cards_are_needles_of_one_second_at_every_depth():
    depths = []
    for seed in range(12):
        scene = make_video(seed, 128, 2.0, 1).scene
        assert all(card.end_s - card.start_s == 1 for card in scene.cards)
        depths += [card.start_s / scene.seconds for card in scene.cards]
    assert {int(depth * 4) for depth in depths} == {0, 1, 2, 3}


def test_a_videos_questions_ask_above_all_for_needles_and_times():
    kinds = [q.kind for q in make_video(4, 256, 2.0, QUESTIONS_PER_VIDEO).questions]
    groups = [group(kind) for kind in kinds]
    assert set(groups) == {"needle", "when", "order", "other"}
    assert groups.count("needle") + groups.count("when") >= 8


def test_settings_that_cannot_work_are_refused():
    with pytest.raises(ConfigError, match="--frames"):
        QualitySettings(n_frames=(8,))
    with pytest.raises(ConfigError, match="--keep-ratio"):
        QualitySettings(keep_ratios=(1.5,))
