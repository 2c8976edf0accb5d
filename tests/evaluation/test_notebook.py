"""The notebook beside a report: its cells run in a copied folder and draw the report's own figures."""

import json

import pandas as pd
import pytest
from test_evaluation import AID, SPEED, answers, report_of

from biomechgpt.core.settings import InputError
from biomechgpt.evaluation import answers_table
from biomechgpt.evaluation.report import write_report
from biomechgpt.motion import plots


def run_cells(path, monkeypatch):
    """Run a notebook's cells in its folder, as Jupyter does; returns the figures that they display."""
    monkeypatch.chdir(path.parent)
    shown = []
    names = {"display": shown.append}
    for cell in json.loads(path.read_text())["cells"]:
        if cell["cell_type"] == "code":
            lines = [line for line in "".join(cell["source"]).splitlines() if not line.startswith("%")]
            exec("\n".join(lines), names)
    return shown


@pytest.fixture
def rows():
    """Answers to a task with labels and to one with numbers."""
    labels = answers(AID, ["none", "cane", "cane"], ["no device", "a cane", "no device"], ["p", "q", "r"])
    numbers = answers(SPEED, [1.0, 1.2, 0.8], ["1.10 m/s", "1.15 m/s", "0.90 m/s"], ["p", "q", "r"])
    return pd.concat([labels, numbers], ignore_index=True)


def test_the_notebook_redraws_the_figures_of_the_report_after_it_was_moved(
    tmp_path, rows, monkeypatch, capsys
):
    page, metrics = report_of(tmp_path, rows, tokenizer={"rmse_deg_by_joint": {"knee_angle_r": 3.0}})
    (tmp_path / "out").rename(tmp_path / "sent by mail é")
    (tmp_path / "answers.parquet").unlink()
    figures = run_cells(tmp_path / "sent by mail é/report.ipynb", monkeypatch)
    assert len(figures) == 2 * len(metrics["tasks"]) + 1  # each task, its errors by participant, the joints
    with plots.style():
        for figure in figures:
            assert plots.svg(figure) in page
    assert "aid" in capsys.readouterr().out


def test_the_notebook_runs_in_a_kernel_of_jupyter(tmp_path, rows):
    """Each figure is shown once, in a folder with spaces and accents."""
    pytest.importorskip("ipykernel", reason="needs pip install nbclient ipykernel")
    nbclient = pytest.importorskip("nbclient", reason="needs pip install nbclient ipykernel")
    nbformat = pytest.importorskip("nbformat", reason="needs pip install nbclient ipykernel")
    _, metrics = report_of(tmp_path, rows, tokenizer={"rmse_deg_by_joint": {"knee_angle_r": 3.0}})
    folder = (tmp_path / "out").rename(tmp_path / "sent by mail é")
    book = nbformat.read(folder / "report.ipynb", as_version=4)
    nbformat.validate(book)
    place = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(book, timeout=600, kernel_name="python3", resources=place).execute()
    outputs = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    figures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(figures) == 2 * len(metrics["tasks"]) + 1  # each task, its errors by participant, the joints
    assert any("aid" in output.get("text", "") for output in outputs)


def test_the_report_names_its_notebook_and_no_place_on_the_disk(tmp_path, rows):
    page, _ = report_of(tmp_path, rows)
    assert 'href="report.ipynb"' in page
    assert 'href="answers.parquet"' in page
    assert str(tmp_path) not in (tmp_path / "out/report.ipynb").read_text() + page
    content = json.loads((tmp_path / "out/report.ipynb").read_text())
    assert (content["nbformat"], content["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in content["cells"]}) == len(content["cells"])


def test_another_table_of_that_name_is_not_overwritten(tmp_path, rows):
    report_of(tmp_path, rows)
    other = tmp_path / "results/answers.parquet"
    other.parent.mkdir()
    pd.DataFrame({"file": ["walk.mot"]}).to_parquet(other)
    with pytest.raises(InputError, match=r"answers\.parquet: expected an evaluation's table or no file"):
        write_report(str(tmp_path / "answers.parquet"), str(other.parent))
    assert not answers_table.is_one(str(other))
    assert [path.name for path in other.parent.iterdir()] == ["answers.parquet"]
