"""Local reparameterization: what comes out of a layer is drawn, not its weights."""

from __future__ import annotations

import torch
from torch import Tensor

from ..network import affine
from ..pieces.weights import DrawnByLayer, LayerWeights


class LocalReparameterization(DrawnByLayer):
    r"""Draw the outputs of each layer for each datum, N(a M + m, a² V + v), instead of its weights.

    Under a mean-field Gaussian over the weights W_ij ~ N(M_ij, V_ij) of a linear layer its outputs for given
    inputs a are independent Gaussians: b_j = Σ_i a_i M_ij + m_j + (Σ_i a_i² V_ij + v_j)^{1/2} ξ_j. With ξ
    drawn anew for every datum, sample and output, the mean of each datum's log-likelihood is that under the
    weights, and so is its gradient: unbiased for the ELBO, the KL in closed form. S evaluations of
    log p(x|w), one backward pass through it.

    Where the data of a batch share the weights, draws shared by the batch leave a covariance between its data
    that does not fall with B; here there is none, and the variance falls like 1/B.

    Needs a network of linear layers, each applied once to one vector a datum (`Target.network`). Latents
    beside the weights are reparameterized.

    Example:
        >>> import torch
        >>> from elbograd.estimators import Linear, Network, Target, create
        >>> x = torch.ones(4, 2)
        >>> network = Network({"w": Linear(2, 1)}, lambda apply: -apply("w", x).squeeze(-1).square())
        >>> q = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(4, 3), 1.0), 1)
        >>> target = Target(network.dense, network=network)
        >>> create("local-reparameterization")(q, target, num_samples=10).surrogate.shape
        torch.Size([4])

    References:
        Kingma, Salimans & Welling, Variational Dropout and the Local Reparameterization Trick, 2015, section
        2.2 and eq. 6.
    """

    @staticmethod
    def outputs(weights: LayerWeights, inputs: Tensor, rows: torch.Size) -> Tensor:
        layer, variance = weights.layer, weights.scale.square()
        mean = affine(inputs, layer.matrix(weights.loc), layer.offset(weights.loc), weights.together)
        spread = affine(inputs.square(), layer.matrix(variance), layer.offset(variance), weights.together)
        # Of inputs that are all zero the spread is: its root has no derivative there, and none is needed.
        scale = spread.clamp_min(torch.finfo(spread.dtype).tiny).sqrt()
        noise = torch.randn((*rows, layer.outputs), dtype=mean.dtype, device=mean.device)
        return torch.addcmul(mean, scale, noise)
