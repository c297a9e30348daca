"""Random numbers are seen and replaced, whichever way they are drawn."""

import pytest
import torch
from elbograd.estimators.testing.random_operations import RandomOperations
from torch import distributions as td

WAYS = {
    "randn": lambda: torch.randn(4, 3),
    "rand_like": lambda: torch.rand_like(torch.zeros(4, 3)),
    "normal_": lambda: torch.empty(4, 3).normal_(),
    "normal": lambda: torch.normal(torch.zeros(4, 3), torch.ones(4, 3)),
    "Normal": lambda: td.Normal(torch.zeros(3), 1.0).rsample((4,)),
    "bernoulli": lambda: td.Bernoulli(torch.full((3,), 0.4)).sample((4,)),
    "exponential_": lambda: td.Exponential(torch.ones(3)).sample((4,)),
    "own generator": lambda: torch.rand(4, 3, generator=torch.Generator().manual_seed(3)),
    "vmap": lambda: torch.func.vmap(lambda x: x + torch.randn(3), randomness="different")(torch.zeros(4, 3)),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_is_drawn_is_seen_and_replaced_and_the_generator_moves_as_ever(way):
    torch.manual_seed(0)
    plain, after = WAYS[way](), torch.rand(1)
    torch.manual_seed(0)
    with RandomOperations() as seen:
        looked_on = WAYS[way]()
    assert torch.equal(plain, looked_on)
    assert torch.equal(torch.rand(1), after)
    (drawn,) = seen.drawn
    assert torch.equal(drawn.output.reshape(plain.shape), plain)
    with RandomOperations(lambda index, drawn: torch.full_like(drawn.output, 0.25 + index)):
        replaced = WAYS[way]()
    assert torch.equal(replaced, torch.full((4, 3), 0.25))


def test_parameters_are_kept_though_they_are_overwritten():
    p = torch.tensor([0.2, 0.9])
    with RandomOperations() as seen:
        p.bernoulli_(p.clone())
        torch.multinomial(torch.tensor([[0.1, 0.9]]), 5, replacement=True)
    bits, places = seen.drawn
    assert torch.equal(bits.arguments[1], torch.tensor([0.2, 0.9]))
    assert places.name == "multinomial"
    assert places.output.shape == (1, 5)
