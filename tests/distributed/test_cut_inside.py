"""A wide table cut inside its experts' embeddings computes what any other plan does."""

from dmoe.testing.small_run import train_and_tell
from tests.distributed.test_invariance import STEPS, check


def test_columns_of_a_wide_table_cut_inside_every_embedding(ranks, data_set):
    (alone,) = ranks(1).run(train_and_tell, data_set, STEPS, "sharding.types=[table_wise]")
    narrow = 'sharding.tables={"*": {types: [column_wise], min_partition: 4}}'
    check(ranks(2).run(train_and_tell, data_set, STEPS, narrow), alone, {"column_wise"})
