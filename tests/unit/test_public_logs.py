"""Public logs as CSV files that their own schemas read."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from dmoe.data.prepare.options import Options
from dmoe.data.prepare.pipeline import preprocess

TOOL = Path(__file__).parents[2] / "tools" / "public_logs.py"
INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t7\t4\t881250949\n2\t7\t3\t881250000\n2\t9\t5\t881250949\n"
ITEM = (
    "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    '7\tTwelve "Monkeys"\t1995\tDrama Sci-Fi\n9\tBabe\t1995\tChildren\'s\n'
)
USER = "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n1\t24\tM\ttechnician\t85711\n2\t53\tF\tother\t94043\n"


def run(*arguments: str) -> tuple[int, str]:
    done = subprocess.run([sys.executable, str(TOOL), *arguments], capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


def test_movielens_of_a_wheel_is_a_log_in_the_order_of_time(tmp_path):
    with zipfile.ZipFile(tmp_path / "recbole.whl", "w") as wheel:
        for name, text in {"inter": INTER, "item": ITEM, "user": USER}.items():
            wheel.writestr(f"recbole/dataset_example/ml-100k/ml-100k.{name}", text)
    assert run("ml100k", str(tmp_path / "recbole.whl"), "--output", str(tmp_path / "log"))[0] == 0
    lines = (tmp_path / "log/log.csv").read_text().splitlines()
    assert lines[1:] == [
        '0,881250000,2,7,"Twelve ""Monkeys""",1995,Drama|Sci-Fi,53,F,other,94043',
        '1,881250949,1,7,"Twelve ""Monkeys""",1995,Drama|Sci-Fi,24,M,technician,85711',
        "1,881250949,2,9,Babe,1995,Children's,53,F,other,94043",
    ]
    schema, log = str(tmp_path / "log/schema.yaml"), str(tmp_path / "log/log.csv")
    made = preprocess(Options([log], str(tmp_path / "data"), schema=schema, min_count=1, split="1,0,0", workers=1)).manifest
    assert (made.splits["train"].rows, made.splits["train"].positives) == (3, 2)
    assert {one.name: one.cardinality - 2 for one in made.categorical}["genres"] == 3


def test_frappe_keeps_its_test_file_and_draws_a_tenth_to_validate(tmp_path):
    rows = [f"{1 if number % 3 == 0 else -1} {' '.join(f'{field * 100 + number}:1' for field in range(10))}" for number in range(20)]
    (tmp_path / "frappe.validation.libfm").write_text("\n".join(rows) + "\n")
    code, told = run("frappe", str(tmp_path), "--output", str(tmp_path / "log"))
    assert code == 2
    assert "frappe.test.libfm" in told
    (tmp_path / "frappe.test.libfm").write_text(rows[3] + "\n")
    assert run("frappe", str(tmp_path), "--output", str(tmp_path / "log"))[0] == 0
    lines = (tmp_path / "log/log.csv").read_text().splitlines()[1:]
    days = [line.split(",")[0] for line in lines]
    assert [days.count(f"2000-01-0{day}") for day in (1, 2, 3)] == [18, 2, 1]
    assert lines[20] == "2000-01-03,1,3,103,203,303,403,503,603,703,803,903"
    assert [line.split(",")[1] for line in lines[:20]] == [str(int(number % 3 == 0)) for number in range(20)]


@pytest.mark.parametrize("source", ["nowhere", "empty"])
def test_a_source_without_the_files_is_one_line(tmp_path, source):
    (tmp_path / "empty").mkdir()
    code, told = run("ml100k", str(tmp_path / source), "--output", str(tmp_path / "log"))
    assert (code, told.count("\n")) == (2, 1)
