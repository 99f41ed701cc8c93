import math
import struct

import numpy as np
import pytest
import torch

from puppetize import start

MASK = 2**64 - 1
GOLDEN = ["bf2845d6", "beb6c59f", "bfcfa9d6", "bde8b0b1", "3f6429f3", "3f0a05d6"]


def philox4x64(seed, stream):
    """Salmon et al. (2011), ten rounds, in plain integers; the counter starts at 1 as in numpy."""
    block = 0
    while True:
        block += 1
        counter, key = [block, 0, 0, 0], [seed, stream]
        for _ in range(10):
            first = 0xD2E7470EE14C6C93 * counter[0]
            second = 0xCA5A826395121157 * counter[2]
            counter = [
                (second >> 64) ^ counter[1] ^ key[0],
                second & MASK,
                (first >> 64) ^ counter[3] ^ key[1],
                first & MASK,
            ]
            key = [(key[0] + 0x9E3779B97F4A7C15) & MASK, (key[1] + 0xBB67AE8584CAA73B) & MASK]
        yield from counter


def expected(count, seed, stream):
    words = philox4x64(seed, stream)
    for _ in range(count):
        word = next(words)
        total = sum(word >> shift & 0xFFFF for shift in (0, 16, 32, 48)) - 131070
        yield total * math.sqrt(3 / (2**32 - 1))


def bits(values):
    return [struct.pack(">f", value).hex() for value in values]


@pytest.mark.parametrize(("seed", "stream"), [(0, 0), (0, 1), (2**64 - 1, 7)])
def test_the_documented_formula_bit_for_bit(seed, stream):
    found = start.seeded((3, 5, 7), seed, stream)
    assert found.dtype == torch.float32
    assert bits(found.flatten().tolist()) == bits(expected(105, seed, stream))


def test_golden_values():
    found = start.seeded((2, 3), seed=0, stream=0)
    assert bits(found.flatten().tolist()) == GOLDEN


def test_long_streams_are_not_cut_into_pieces():
    """Neither at the sizes that are computed at once, nor anywhere else."""
    count = 3 * 2**18 + 5
    words = np.random.Philox(key=np.array([4, 2], dtype=np.uint64)).random_raw(count)
    lanes = words[:, None] >> np.arange(0, 64, 16, dtype=np.uint64) & np.uint64(0xFFFF)
    expected = (lanes.astype(np.int64).sum(1) - 131070) * math.sqrt(3 / (2**32 - 1))
    found = start.seeded((count,), seed=4, stream=2)
    assert torch.equal(found, torch.from_numpy(expected.astype(np.float32)))


def test_mean_variance_and_range():
    numbers = start.seeded((1000, 1000), seed=1, stream=0)
    assert abs(numbers.mean()) < 4e-3
    assert abs(numbers.var() - 1) < 4e-3
    assert numbers.abs().max() < 2 * math.sqrt(3)


def test_streams_and_seeds_are_unrelated():
    numbers = [start.seeded((100, 100), *key).flatten() for key in ((0, 0), (0, 1), (1, 0))]
    correlation = torch.corrcoef(torch.stack(numbers)) - torch.eye(3)
    assert correlation.abs().max() < 0.05


def test_the_shape_only_cuts_the_stream():
    long, short = start.seeded((10, 4), 3, 2), start.seeded((5, 2, 2, 1), 3, 2)
    assert torch.equal(long.flatten()[:20], short.flatten())


def test_the_global_generator_is_left_alone():
    torch.manual_seed(0)
    expected_next = torch.rand(3)
    torch.manual_seed(0)
    start.seeded((4, 4), 0, 0)
    assert torch.equal(torch.rand(3), expected_next)


@pytest.mark.parametrize("state", [(64, 64, 3, 3), (512, 4, 1, 1), (100, 33, 5, 5), (1, 1, 3, 3)])
def test_windows_move_inside_their_field(state):
    shape = start.field_shape(state)
    assert shape == (*(n + math.ceil(n / 4) for n in state[:2]), *state[2:])
    places = torch.arange(math.prod(shape)).reshape(shape)
    corners = []
    for step in range(40):
        window = start.window(places, state, step)
        assert window.shape == state
        corner = int(window[0, 0, 0, 0])
        corners.append(divmod(corner // math.prod(state[2:]), shape[1]))
    assert corners[0] == (0, 0)
    for axis in (0, 1):
        offsets = math.ceil(state[axis] / 4) + 1
        moves = [corner[axis] for corner in corners]
        assert len(set(moves[:offsets])) == min(offsets, 40)  # each before one comes again


def test_windows_are_the_same_for_ever():
    field = torch.arange(80 * 80).reshape(80, 80, 1, 1)
    corners = [
        divmod(int(start.window(field, (64, 64, 1, 1), t)[0, 0, 0, 0]), 80) for t in range(5)
    ]
    assert corners == [(0, 0), (13, 10), (9, 3), (5, 13), (1, 6)]
