"""Every module is imported by a test, or it is said which tests reach it otherwise."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REACHED_BY = {
    "bench/test_bench_speed.py": "bench.speed.features bench.speed.run",
    "bench/test_scene.py": "cli.scene video.mark",
    "cli/test_bench.py": "cli.bench cli.benchmarks.look cli.benchmarks.quality "
    "cli.benchmarks.sampling cli.benchmarks.shared cli.benchmarks.speed cli.benchmarks.still "
    "cli.benchmarks.text_needle",
    "cli/test_cli.py": "__main__ cli.ask cli.help cli.opening cli.usage cli.videos "
    "cli.saved cli.sessions cli.session_table session.loading video.path",
    "cli/test_cli_pull.py": "cli.asking cli.models cli.pull",
    "cli/test_interrupts.py": "cli.interrupts",
    "cli/test_no_effect.py": "cli.no_effect",
    "cli/test_screens.py": "cli.answer_block cli.chat cli.index session.answer session.telling "
    "session.saved_chats",
    "doctor/test_doctor.py": "cli.doctor",
    "evaluate/test_eval_cli.py": "cli.evaluate cli.jobs_run cli.run evaluate.asking evaluate.own "
    "evaluate.report",
    "evaluate/test_presets.py": "evaluate.letters evaluate.words",
    "models/test_convert.py": "convert.__main__ convert.checkpoint convert.gguf_out "
    "convert.language convert.layout convert.vision",
    "models/test_family_rules.py": "models.families.family models.families.internvl "
    "models.families.llava models.families.marks models.families.qwen models.families.smolvlm",
    "models/test_hub.py": "models.hub.errors models.hub.obtain",
    "models/test_published.py": "models.shape",
    "plan/test_plan.py": "cli.plan",
    "reference/test_golden.py": "golden.__main__ golden.dpselect golden.reference.cache",
    "report/test_report.py": "cli.report",
    "server/test_forms.py": "server.answering server.chat_routes server.file_routes server.forms "
    "server.knobs server.messages server.parts server.responses_routes "
    "server.schemas server.sources",
    "server/test_library.py": "server.library.folders server.library.live server.library.records "
    "server.library.routes server.library.tickets server.page_routes",
    "server/test_many.py": "cli.serve server.blobs server.metrics server.pool server.uploads",
    "server/test_requests.py": "server.grammar_trial",
    "server/test_safety.py": "server.status_routes",
    "session/test_resume.py": "engine.state",
    "session/test_session.py": "session.saved_video",
    "video/test_video_matrix.py": "video.pieces video.stills",
}


def imported() -> set[str]:
    """Return the modules, and the names in them, that tests import."""
    found: set[str] = set()
    for path in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {name.name for name in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
    return found


def test_every_module_is_imported_by_a_test_or_reached_by_one_that_is_named():
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in (ROOT / "retake_edge").rglob("*.py")
        if path.stem != "__init__" and "_bindings" not in path.parts
    }
    reached = {f"retake_edge.{name}" for names in REACHED_BY.values() for name in names.split()}
    assert modules - imported() - reached == set()
    assert reached - modules == reached & imported() == set(), "no more, or imported by now"
    assert [file for file in REACHED_BY if not (ROOT / "tests" / file).is_file()] == []
