"""Every architecture of both zoos, built without memory, walked and planned.

The counts come from tables with the columns name, params, conv2d, conv2d_params, linear_params,
one row an architecture: ``timm.csv`` and ``torchvision.csv`` in the folder that the environment
variable ``PUPPETIZE_CENSUS`` names.
"""

import csv
import functools
import math
import os
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import nn

import zoo_adapters
from puppetize import PuppetizeError
from puppetize.analysis import analyse

CENSUS = Path(os.environ.get("PUPPETIZE_CENSUS", Path(__file__).parents[2] / "shared" / "census"))
RESULTS = Path(__file__).parents[1] / "benchmarks" / "results" / "zoo"

# What cannot be done yet, by architecture, with the reason. An entry that starts to pass fails.
EXPECTED_FAILURES: dict[str, str] = {}

# Convolutions that no forward pass of their model reaches, by architecture.
NEVER_EXECUTED: dict[str, tuple[str, ...]] = {}

# One architecture of each kind that walks have gone wrong on, and of the large families.
SPREAD = """
timm/resnet18 timm/resnest14d timm/skresnet18 timm/densenet121 timm/vgg11_bn
timm/nf_resnet26 timm/dm_nfnet_f0 timm/resnetv2_50x1_bit timm/tresnet_m timm/regnety_002
timm/ghostnet_100 timm/hrnet_w18_small timm/dla34 timm/xception41 timm/inception_v3
timm/selecsls42 timm/cs3darknet_focus_s
timm/tf_efficientnet_b0 timm/tf_mixnet_s timm/mobilenetv3_small_100
timm/mobileone_s0 timm/repvgg_a0 timm/fastvit_t8 timm/repvit_m1 timm/rexnet_100
timm/convnext_atto timm/convmixer_768_32 timm/inception_next_atto timm/starnet_s050
timm/halonet26t timm/botnet26t_256 timm/lambda_resnet26t timm/coatnet_pico_rw_224
timm/efficientvit_b0 timm/efficientvit_m0 timm/levit_conv_128s timm/levit_128s
timm/mobilevitv2_050 timm/edgenext_xx_small timm/poolformer_s12 timm/focalnet_tiny_srf
timm/sequencer2d_s timm/swin_tiny_patch4_window7_224 timm/vit_tiny_patch16_224
timm/mixer_s16_224 timm/naflexvit_base_patch16_gap
torchvision/alexnet torchvision/googlenet torchvision/inception_v3
torchvision/quantized_inception_v3 torchvision/quantized_googlenet torchvision/squeezenet1_1
torchvision/regnet_y_400mf torchvision/efficientnet_v2_s torchvision/vit_b_32
torchvision/mvit_v2_s torchvision/r3d_18 torchvision/raft_small
torchvision/deeplabv3_mobilenet_v3_large torchvision/fcn_resnet50
torchvision/fasterrcnn_mobilenet_v3_large_320_fpn
torchvision/retinanet_resnet50_fpn torchvision/fcos_resnet50_fpn torchvision/ssd300_vgg16
torchvision/ssdlite320_mobilenet_v3_large
""".split()  # noqa: SIM905


class Structure(NamedTuple):
    """What became of an architecture's convolutions."""

    convs: int
    numbers: int
    never: tuple[str, ...]


@functools.cache
def structure(name: str) -> Structure:
    with torch.device("meta"):
        model = zoo_adapters.create(name)
    # Looked at by hand, not by the walk's own eyes.
    convs = {n: m for n, m in model.named_modules(remove_duplicate=False) if is_conv(m)}
    if not convs:
        with pytest.raises(PuppetizeError, match=r"has no Conv2d layer"):
            analyse(model)
        return Structure(0, 0, ())
    found = analyse(model)
    plan, records = found.plan, found.walk.convs
    planned = [n for item in (*plan.sites, *plan.kept) for n in (item.name, *item.aliases)]
    assert sorted(planned) == sorted(convs)
    assert plan.order == tuple(record.name for record in records)
    assert all(kept.reason for kept in plan.kept)
    for record in records:
        for n in (record.name, *record.aliases):
            assert record.shape == tuple(convs[n].weight.shape), n
        assert (record.calls > 0) == bool(record.mode), record.name
    executed = [record for record in records if record.mode == "eval"]
    assert found.walk.macs >= sum(record.macs for record in executed) - len(executed)
    never = tuple(record.name for record in records if not record.mode)
    modules = len({id(module) for module in convs.values()})
    return Structure(modules, sum(math.prod(record.shape) for record in records), never)


def is_conv(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d)


@functools.cache
def census() -> dict[str, tuple[int, int]]:
    tables = {zoo: CENSUS / f"{zoo}.csv" for zoo in ("timm", "torchvision")}
    counts = {}
    for zoo, path in tables.items():
        if not path.exists():
            pytest.skip(f"no {path}: set PUPPETIZE_CENSUS to the folder that holds it")
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                counts[f"{zoo}/{row['name']}"] = (int(row["conv2d"]), int(row["conv2d_params"]))
    return counts


def architectures(names):
    return [pytest.param(name, marks=marks(name)) for name in names]


def marks(name):
    reason = EXPECTED_FAILURES.get(name)
    return [pytest.mark.xfail(strict=True, reason=reason)] if reason else []


def check(name: str) -> None:
    assert structure(name).never == NEVER_EXECUTED.get(name, ())


def check_census(name: str) -> None:
    if name not in census():
        pytest.skip(f"{name} is not in the tables, which are of another version of its zoo")
    found = structure(name)
    assert (found.convs, found.numbers) == census()[name]


@pytest.mark.parametrize("name", architectures(SPREAD))
def test_every_convolution_is_generated_or_kept_with_a_reason(name):
    check(name)


@pytest.mark.parametrize("name", architectures(SPREAD))
def test_the_sums_equal_the_census(name):
    check_census(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", architectures(zoo_adapters.list_models()))
def test_all_architectures(name):
    check(name)
    check_census(name)


@pytest.mark.parametrize("zoo", ["timm", "torchvision"])
def test_the_published_table_equals_the_census(zoo):
    with (RESULTS / f"{zoo}.csv").open(newline="") as file:
        rows = {f"{zoo}/{row['model']}": row for row in csv.DictReader(file)}
    expected = {name: counts for name, counts in census().items() if name.startswith(f"{zoo}/")}
    assert rows.keys() == expected.keys()
    for name, (convs, numbers) in expected.items():
        row = rows[name]
        assert (int(row["convs"]), int(row["conv_params"])) == (convs, numbers), name
        assert row["status"] == ("passed" if convs else "skipped"), name
        if convs:
            assert int(row["sites"]) + int(row["kept"]) <= convs, name


def test_tables_name_architectures_that_exist():
    known = set(zoo_adapters.list_models())
    assert {*EXPECTED_FAILURES, *NEVER_EXECUTED, *SPREAD} <= known
    assert len(set(SPREAD)) == len(SPREAD)
