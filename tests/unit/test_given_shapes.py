"""Shapes that a file asks for are held against what is there before memory is asked for; pieces are apart by a check in n log n."""

import json
import random
from itertools import pairwise

import pytest

from dmoe.checkpoint.index import Piece, _apart
from dmoe.config.config import Config
from dmoe.errors import UserError
from dmoe.model.assemble import outline
from dmoe.model.build import assemble_mixture, make_blueprint
from dmoe.serve.scorer import Scorer
from dmoe.sharding.planner.planning_model import manifest_of
from tests.unit.serve import test_scorer

WIDE = 1 << 20
OVERFLOWING = {"fm_fields": WIDE, "linear_fields": WIDE, "rank": WIDE, "hidden": [WIDE], "num_layers": 2}


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "mlp", "options": {"hidden": [WIDE, WIDE]}},
        {"kind": "mlp", "options": {"hidden": [16]}},
        {"kind": "mlp", "options": {"hidden": [8, 8]}},
        {"kind": "wukong", "options": OVERFLOWING},
        {"kind": "mlp", "options": {"hidden": [10**17]}},
        {"kind": "crossnet", "options": {"num_layers": 10**6}},
    ],
    ids=lambda one: f"{one['kind']} {str(one['options'])[:30]}",
)
def test_a_scorer_whose_layers_do_not_fit_its_weights_is_refused(tmp_path, monkeypatch, options):
    test_scorer.make(tmp_path)
    Scorer(str(tmp_path))
    # Whoever draws weights has asked for their memory.
    monkeypatch.setattr("dmoe.serve.scorer.assemble", lambda **_: pytest.fail("asked for memory"))
    about = json.loads((tmp_path / "scorer.json").read_text())
    about["experts"][0] |= options
    (tmp_path / "scorer.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match=r"^[^\n]*(scorer\.json|dense\.safetensors)[^\n]*$"):
        Scorer(str(tmp_path))


@pytest.mark.parametrize(
    "experts", [[{"kind": "mlp", "hidden": [WIDE, WIDE]}], [{"kind": "wukong", **OVERFLOWING}]], ids=["memory", "addresses"]
)
def test_a_model_that_fits_no_machine_is_refused_before_its_weights_are_drawn(monkeypatch, experts):
    config = Config(model={"experts": experts})
    blueprint = make_blueprint(config, manifest_of({"C1": 10}, "x"))
    monkeypatch.setattr("dmoe.model.build.assemble", lambda **_: pytest.fail("asked for memory"))
    with pytest.raises(UserError, match=r"^model: "):
        assemble_mixture(config, blueprint)


def test_an_outline_has_the_names_and_shapes_of_the_model():
    config = Config(model={"experts": ["mlp", "cin", "crossnet"], "embedding": {"dim": 4}})
    parts = {"settings": config.model, "fields": 3, "dense": 2, "experts": [("mlp", {}), ("cin", {}), ("crossnet", {})]}
    parts |= {"set_dims": [4, 4, 4], "set_of_expert": [0, 1, 2]}
    made = assemble_mixture(config, make_blueprint(config, manifest_of({"C1": 10, "C2": 20, "C3": 30, "dense": 2}, "x")))
    outlined = outline(**parts).state_dict()
    assert {name: value.shape for name, value in outlined.items()} == {name: value.shape for name, value in made.state_dict().items()}
    assert all(value.is_meta for value in outlined.values())


def rectangles(draw: random.Random) -> list[Piece]:
    """A table cut into a grid, with some cells moved, grown or left out."""
    rows, columns = (sorted(draw.sample(range(1, 9), draw.randint(0, 4))) for _ in range(2))
    cells = [(top, bottom, left, right) for top, bottom in pairwise([0, *rows, 9]) for left, right in pairwise([0, *columns, 9])]
    moved = [
        tuple(max(0, edge + draw.choice([-1, 0, 0, 0, 0, 0, 0, 1])) for edge in cell) if draw.random() < 0.3 else cell
        for cell in draw.sample(cells, draw.randint(1, len(cells)))
    ]
    return [Piece("t", "weight", a, c, b - a, d - c, "f", "k") for a, b, c, d in moved if b > a and d > c]


def test_pieces_are_apart_where_no_number_is_in_two():
    draw, seen = random.Random(0), set()
    for _ in range(3000):
        pieces = rectangles(draw)
        cells = [
            (row, column)
            for one in pieces
            for row in range(one.row, one.row + one.rows)
            for column in range(one.column, one.column + one.columns)
        ]
        apart = len(cells) == len(set(cells))
        assert _apart(pieces) == apart, pieces
        seen.add(apart)
    assert seen == {True, False}


def test_states_of_a_row_are_apart_by_their_rows():
    def state(row, rows):
        return Piece("t", "sum", row, row % 2, rows, 0, "f", "k")

    assert _apart([state(0, 3), state(3, 2), state(5, 1)])
    assert not _apart([state(0, 3), state(2, 2)])
    assert not _apart([state(0, 3), state(0, 3)])
