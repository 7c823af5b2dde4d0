"""What fits where: engines and decoders of clusters of all shapes, without a cluster."""

from __future__ import annotations

from typing import Any

import pytest

from dawnchorus import config
from dawnchorus.config import RunConfig
from dawnchorus.errors import ConfigError
from dawnchorus.placement import Node, NoRoom, Resources, room, share_out, wanted


def run(**settings: Any) -> RunConfig:
    given = {k.replace("__", "."): v for k, v in settings.items()}
    return config.build({"input": "a", "output": "b"}, given=given)


def shared(nodes: list[Node], **settings: Any) -> Resources:
    return share_out(run(**settings), nodes)


def test_one_engine_per_gpu_and_the_other_slots_decode() -> None:
    # Ray gives each node labels of its own.
    one, two = {"ray.io/node-id": "1"}, {"ray.io/node-id": "2"}
    use = shared([Node(16, 4, "H100", one), Node(16, 4, "H100", two), Node(64)])
    assert (use.engines, use.gpus_per_engine, use.cpus_per_engine) == (8, 1.0, 1.0)
    assert use.decoders == 96 - 8 - 1
    assert use.accelerator == "H100"
    assert use.placement() == [
        "2 x 4 H100 and 16 CPUs: room for 4 engines, 12 decoding each",
        "1 x 64 CPUs: room for 64 decoding",
    ]


def test_several_engines_share_a_gpu_but_none_spans_two() -> None:
    assert shared([Node(16, 2, "L4")], workers__gpus_per_engine=0.5).engines == 4
    assert room(Node(16, 2), 1, 0.4) == 4, "two of 0.4 in each GPU; a fifth would lie across both"
    assert room(Node(2, 2), 1, 0.25) == 2, "the CPUs end first"
    assert room(Node(8, 3), 1, 2) == 1


def test_a_node_with_as_many_cpus_as_gpus_keeps_one_for_decoding() -> None:
    assert shared([Node(8, 8, "L4")]).engines == 7
    assert shared([Node(4, 4, "L4")] * 4).engines == 15
    assert shared([Node(8, 8, "L4")], workers__cpus_per_engine=0.5).engines == 8
    assert shared([Node(8, 8, "L4")], workers__cpus_per_engine=0).engines == 8
    with pytest.raises(NoRoom, match="has 7 beside the one for decoding"):
        shared([Node(8, 8, "L4")], workers__engines=8)


def test_labels_that_no_node_has_are_waited_for_by_name() -> None:
    decoding = {"workers__decode_labels": {"role": "decode"}}
    with pytest.raises(NoRoom, match=r"decode_labels \(role: decode\)"):
        shared([Node(8)], **decoding)
    assert shared([Node(8), Node(4, labels={"role": "decode"})], **decoding).decoders > 0


def test_an_engine_is_never_spread_over_nodes() -> None:
    nodes = [Node(8, 1, "L4")] * 4
    with pytest.raises(NoRoom, match="have room for 0"):
        shared(nodes, workers__gpus_per_engine=2, workers__engines=1)


def test_a_mix_of_gpus_has_no_single_price() -> None:
    assert shared([Node(8, 1, "L4"), Node(8, 1, "H100")]).accelerator is None


def test_without_gpus_most_slots_are_engines() -> None:
    use = shared([Node(10)])
    assert (use.engines, use.cpus_per_engine, use.gpus_per_engine) == (7, 1.0, 0.0)
    assert use.sentence() == "7 engines x 1 CPU; 5 decoding"


def test_an_engine_told_to_use_a_gpu_never_slips_onto_cpus() -> None:
    with pytest.raises(NoRoom, match=r"1 engine with workers.gpus_per_engine = 1 need 1 slots; .* has 0"):
        shared([Node(10)], engine__device="cuda")


def test_an_engine_that_has_a_gpu_uses_it_and_one_for_the_cpu_takes_none() -> None:
    nodes = [Node(8, 2, "L4")]
    given = run()
    assert share_out(given, nodes).shares(given.engine).device == "cuda"
    assert share_out(given, [Node(8)]).shares(given.engine).device == "cpu", "eight would share its GPU"
    on_cpu = run(engine__device="cpu")
    use = share_out(on_cpu, nodes)
    assert (use.gpus_per_engine, use.shares(on_cpu.engine).device) == (0.0, "cpu")


def test_a_run_begins_with_what_is_there_and_grows() -> None:
    grown = {"workers__engines": 8, "workers__min_engines": 1, "workers__gpus_per_engine": 1}
    use = shared([Node(8, 2, "L4")], **grown)
    assert (use.first_engines, use.engines) == (2, 8)
    assert use.decoders == 5 * 4, "as if all nodes were like the first"
    assert use.sentence() == "2 to 8 engines x 1 CPU, 1 GPU; 20 decoding"
    assert use.at_most(1).first_engines == 1
    full = shared([Node(16, 8, "L4")], **grown)
    assert (full.first_engines, full.engines) == (8, 8)
    with pytest.raises(NoRoom, match="1 engine with"):
        shared([Node(8)], **grown)


def test_without_a_minimum_all_engines_have_to_fit() -> None:
    with pytest.raises(NoRoom, match="8 engines"):
        shared([Node(8, 2, "L4")], workers__engines=8)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"workers__min_engines": 2}, "Set workers.engines"),
        ({"workers__min_engines": 3, "workers__engines": 2}, "more than workers.engines = 2"),
        ({"workers__cpus_per_engine": 1.5}, "not a whole number"),
    ],
)
def test_what_fits_no_cluster_is_not_waited_for(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        shared([Node(64)], **settings)
    assert not isinstance(caught.value, NoRoom)


def test_an_autoscaler_is_asked_for_all_that_will_be_used() -> None:
    bundles = wanted(
        run(workers__engines=4, workers__min_engines=2, engine__device="cuda", workers__decoders=3)
    )
    assert bundles == [{"CPU": 1.0, "GPU": 1.0}] * 4 + [{"CPU": 1.0}] * 3
    assert wanted(run()) == [{"CPU": 1.0}, {"CPU": 0.5}]


def test_only_nodes_with_the_labels_decode() -> None:
    use = shared(
        [Node(8, 1, "L4"), Node(16, labels={"role": "decode"})], workers__decode_labels={"role": "decode"}
    )
    assert use.placement() == [
        "1 x 1 L4 and 8 CPUs: room for 1 engine",
        "1 x 16 CPUs: room for 16 decoding",
    ]
    # More tasks than slots with the label would wait in Ray without a word.
    assert use.decoders == 16
