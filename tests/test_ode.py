import itertools

import pytest
import torch
from torchdiffeq import odeint

from puppetize.ode import euler, relax

MATRIX = torch.tensor([[-0.5, 1.0], [-1.0, -0.25]], dtype=torch.float64)
START = torch.tensor([1.0, 2.0], dtype=torch.float64)


def linear(state):
    return MATRIX @ state


def test_linear_derivative_has_a_closed_form():
    dt = 0.1
    states = list(euler(itertools.repeat(linear, 20), START, dt))
    once = torch.eye(2, dtype=torch.float64) + dt * MATRIX
    for number, state in enumerate(states, start=1):
        torch.testing.assert_close(state, torch.linalg.matrix_power(once, number) @ START)
    assert len(states) == 20


def test_the_start_is_not_yielded_nor_changed():
    before = START.clone()
    (first,) = euler([linear], START, 0.5)
    assert torch.equal(first, START + 0.5 * (MATRIX @ START))
    assert torch.equal(START, before)


def test_each_step_has_its_own_derivative():
    states = list(euler([torch.ones_like, torch.zeros_like, torch.ones_like], START, 2.0))
    assert [torch.equal(s, START + n) for s, n in zip(states, (2, 2, 4), strict=True)] == [True] * 3


def test_error_falls_with_the_step():
    exact = torch.linalg.matrix_exp(MATRIX) @ START
    errors = []
    for steps in (32, 64, 128):
        *_, last = euler(itertools.repeat(linear, steps), START, 1 / steps)
        errors.append((last - exact).norm().item())
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.05)
    assert errors[1] / errors[2] == pytest.approx(2, rel=0.05)


def test_torchdiffeq_agrees():
    def pendulum(state):
        return torch.stack([state[1], -torch.sin(state[0])])

    times = torch.linspace(0, 2, 21, dtype=torch.float64)
    expected = odeint(lambda t, y: pendulum(y), START, times, method="euler")
    found = torch.stack(list(euler(itertools.repeat(pendulum, 20), START, 0.1)))
    torch.testing.assert_close(found, expected[1:])


def test_relaxation_has_a_closed_form():
    # dh/dt = c - h by Euler: the distance to c shrinks by 1 - dt in each step.
    goal = torch.tensor([3.0, -1.0], dtype=torch.float64)
    states = list(relax(itertools.repeat(lambda state: goal, 10), START, 0.25))
    for number, state in enumerate(states, start=1):
        torch.testing.assert_close(state, goal + 0.75**number * (START - goal))


def test_relaxation_is_euler_of_its_ode():
    expected = euler(itertools.repeat(lambda state: linear(state) - state, 10), START, 0.3)
    for found, state in zip(relax([linear] * 10, START, 0.3), expected, strict=True):
        torch.testing.assert_close(found, state)


def test_relaxation_with_a_whole_step_reaches_its_target():
    (reached,) = relax([linear], START, 1.0)
    assert torch.equal(reached, linear(START))
