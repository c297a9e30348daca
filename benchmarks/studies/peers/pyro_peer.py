"""Pyro, as its documentation's VAE example uses it: a model, a guide, `loss_and_grads`.

No estimator of Pyro's returns one φ-gradient a particle (particles are averaged into one), so replicates
are drawn one call after another; S > 1 samples of one estimate are vectorized particles. The Jit variants
take part but for JitTraceMeanField_ELBO, which in Pyro 1.9 traces anew on every call (16 ms for 1).
"""

from __future__ import annotations

from typing import Any

import pyro
import torch
from pyro import distributions as dist
from pyro import infer
from pyro.distributions.testing.fakes import NonreparameterizedNormal
from torch import Tensor

from ....estimators.plugins.specification import parse
from .shared import Shared, flatten
from .torch_loop import fixed_baseline


class PyroPeer:
    """One gradient of φ a call.

    Args:
        shared: the case.
        method: name of the ELBO in `pyro.infer`.
    """

    def __init__(self, shared: Shared, method: str) -> None:
        pyro.enable_validation(False)
        torch.distributions.Distribution.set_default_validate_args(False)
        pyro.clear_param_store()
        self.shared, self.x, self.phi = shared, shared.x, shared.phi
        self.encoder, self.decoder = shared.problem.encoder, shared.problem.decoder
        self.gaussian = shared.posterior().has_rsample
        self.name = parse(shared.estimator.label).name
        self.infer = self._baseline()
        # Pyro's own moving average starts at zero and needs its run-in.
        self.warm_up = 200 if "use_decaying_avg_baseline" in self.infer.get("baseline", {}) else 20
        options: dict[str, Any] = {"num_particles": shared.num_samples, "max_plate_nesting": 1}
        options["vectorize_particles"] = shared.num_samples > 1
        if method.startswith("Jit"):
            options["ignore_jit_warnings"] = True
        self.elbo = getattr(infer, method)(**options)
        # Bound once: the Jit variants trace anew for every model and guide they have not met.
        self.pair = (self.model, self.guide)
        self._zero = self.x.new_zeros(len(self.x), shared.problem.latent_dim)  # type: ignore[attr-defined]

    def model(self, x: Tensor) -> None:
        """p(x, z)."""
        with pyro.plate("data", len(x)):
            if self.gaussian:
                prior = dist.Normal(self._zero, torch.ones_like(self._zero))
            else:
                prior = dist.Bernoulli(logits=self._zero)
            z = pyro.sample("z", prior.to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z)).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        """q(z|x)."""
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(x)):
            eta = self.encoder(x)
            if not self.gaussian:
                q = dist.Bernoulli(logits=eta)
            else:
                loc, log_scale = eta.chunk(2, -1)
                family = dist.Normal if self.name == "reparameterization" else NonreparameterizedNormal
                q = family(loc, log_scale.exp())
            pyro.sample("z", q.to_event(1), infer=self.infer)

    def step(self) -> None:
        """Draw one replicate."""
        for p in self.phi:
            p.grad = None
        self.elbo.loss_and_grads(*self.pair, self.x)

    def read(self, nothing: Any) -> Tensor:
        """The gradient of the batch-mean ELBO, flat; Pyro's loss is minus the sum over the data."""
        return flatten(p.grad for p in self.phi) / -len(self.x)

    def _baseline(self) -> dict[str, Any]:
        """The ``infer`` options of the latent site; state that is shared is passed in."""
        if self.name == "moving-average-baseline":
            return {"baseline": {"use_decaying_avg_baseline": True}}
        if self.name == "constant-baseline":
            value = fixed_baseline(self.shared).expand(len(self.x))
            return {"baseline": {"baseline_value": value}}
        if self.name == "learned-baseline":
            network = torch.nn.Sequential(self.shared.estimator.network, torch.nn.Flatten(0))  # type: ignore[arg-type]
            return {"baseline": {"nn_baseline": network, "nn_baseline_input": self.x}}
        return {}
