"""Small hierarchies of bits as tables of logits, whose every z is listed: exact gradients by enumeration.

Each latent is a few bits whose logits are looked up by the states of its parents. All probabilities are multiples
of an eighth, so that uniforms on a grid of eighths are as good as all uniforms.
"""

from __future__ import annotations

import itertools

import torch
from elbograd.estimators import Layered, Target
from torch import distributions as td


def bernoulli(logits):
    return td.Independent(td.Bernoulli(logits=logits, validate_args=False), 1, validate_args=False)


def codes(z):
    """Bits (..., D) to the one-hot code of their state (..., 2^D)."""
    code = torch.ones_like(z[..., :1])
    for bit in z.unbind(-1):
        code = torch.cat((code * (1 - bit).unsqueeze(-1), code * bit.unsqueeze(-1)), -1)
    return code


class Hierarchy:
    """A posterior, a prior and a log-likelihood over named bits.

    Args:
        sizes: bits of each latent, by name.
        q_parents, p_parents: by name, of those that have any.
        reads: the latents that log_likelihood depends on, or None for all.
        batch: data of one η each; φ, the tables of q, are theirs together.
        kl_weight: as of `Target`.

    Attributes:
        phi, theta: what is learned of q, and of p and log_likelihood, by name.
    """

    def __init__(self, sizes, q_parents, p_parents, reads=None, seed=0, kl_weight=1.0):
        self.sizes, self.reads, self.kl_weight = sizes, reads, kl_weight
        self.generator = torch.Generator().manual_seed(seed)
        self.q_parents, self.p_parents = q_parents, p_parents
        self.phi = {name: self._table(name, q_parents) for name in sizes}
        self.theta = {name: self._table(name, p_parents) for name in sizes}
        read = sum(sizes[name] for name in reads or sizes)
        self.theta["x"] = self._leaf(3 * torch.randn(2**read, generator=self.generator).double())

    def _leaf(self, values):
        return values.requires_grad_()

    def _table(self, name, parents):
        rows = 2 ** sum(self.sizes[parent] for parent in parents.get(name, ()))
        eighths = torch.randint(1, 8, (rows, self.sizes[name]), generator=self.generator).double() / 8
        return self._leaf(torch.logit(eighths))

    def _layers(self, tables, parents, batch):
        layers = {}
        for name in self.sizes:
            table = tables[name]
            if name in parents:
                layers[name] = _conditional(table, parents[name])
            else:
                layers[name] = bernoulli(table[..., 0, :].expand(*batch, -1))
        return Layered(layers)

    def q(self, *batch):
        return self._layers(self.phi, self.q_parents, batch)

    def replicated(self, replicates):
        """A posterior of so many data, and its tables, a copy each: gradients in them stay apart."""
        tables = {name: t.detach().expand(replicates, *t.shape).clone() for name, t in self.phi.items()}
        tables = {name: self._leaf(table) for name, table in tables.items()}
        return self._layers(tables, self.q_parents, (replicates,)), tables

    def target(self, batch=1, features=False):
        def log_likelihood(z):
            parts = dict(zip(self.sizes, z.split(list(self.sizes.values()), -1), strict=True))
            read = torch.cat([parts[name] for name in self.reads or self.sizes], -1)
            return codes(read) @ self.theta["x"]

        return Target(
            log_likelihood,
            self._layers(self.theta, self.p_parents, ()),
            features=torch.ones(batch, 2).double() if features else None,
            reads=self.reads,
            kl_weight=self.kl_weight,
        )

    def every_z(self):
        """(M, D)."""
        bits = itertools.product([0.0, 1.0], repeat=sum(self.sizes.values()))
        return torch.tensor(list(bits), dtype=torch.float64)

    def weights(self, name):
        return self.kl_weight[name] if isinstance(self.kl_weight, dict) else self.kl_weight

    def exact(self):
        """The objective, attached to φ and θ: the sum over every z, by densities that are written anew here."""
        z = self.every_z()
        parts = dict(zip(self.sizes, z.split(list(self.sizes.values()), -1), strict=True))
        log_q = {name: self._log(self.phi, self.q_parents, name, parts) for name in self.sizes}
        log_p = {name: self._log(self.theta, self.p_parents, name, parts) for name in self.sizes}
        f = self.target().log_likelihood(z)
        for name in self.sizes:
            f = f + self.weights(name) * (log_p[name] - log_q[name])
        return (sum(log_q.values()).exp() * f).sum()

    def _log(self, tables, parents, name, parts):
        table = tables[name]
        if name in parents:
            state = codes(torch.cat([parts[parent] for parent in parents[name]], -1)).argmax(-1)
            logits = table[state]
        else:
            logits = table[0].expand_as(parts[name])
        return torch.where(parts[name] > 0, logits.sigmoid(), (-logits).sigmoid()).log().sum(-1)

    def gradients(self, value, leaves):
        found = torch.autograd.grad(value, list(leaves.values()), retain_graph=True, materialize_grads=True)
        return torch.cat([part.flatten() for part in found])


def _conditional(table, parents):
    """A function with the parents' names for arguments."""
    code = f"lambda {', '.join(parents)}: look_up({', '.join(parents)})"
    return eval(
        code, {"look_up": lambda *z: bernoulli((codes(torch.cat(z, -1)).unsqueeze(-1) * table).sum(-2))}
    )
