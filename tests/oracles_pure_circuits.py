"""Slow, obviously right circuits: one pair at a time through the whole network."""

import torch
from torch import Tensor, nn


def relevance(
    network: nn.Module, lower: str, layer: str, image: Tensor, unit: int, positions: str = "activation"
) -> Tensor:
    """R (C',) of one pair: gradient times activation, of layers with units on axis 1, or of tokens on axis 2.

    Of a module that runs several times, the last run counts.
    """
    modules, found = dict(network.named_modules()), {}

    def cut(_, __, output):
        found["lower"] = output.detach().clone().requires_grad_()
        return found["lower"].clone()

    handles = [
        modules[lower].register_forward_hook(cut),
        modules[layer].register_forward_hook(lambda _, __, output: found.update(upper=output.clone())),
    ]
    try:
        network(image[None])
    finally:
        for handle in handles:
            handle.remove()
    upper = found["upper"][..., unit] if found["upper"].ndim == 3 else found["upper"][:, unit]
    firing = upper.detach().clamp(min=0)
    weights = {
        "activation": firing,
        "one": (firing > 0).float(),
        "peak": torch.zeros_like(firing).flatten().index_put((firing.argmax(),), firing.max()).view_as(firing),
    }[positions]
    gradient = torch.autograd.grad(upper, found["lower"], weights)[0]
    product = (gradient * found["lower"]).detach()[0]
    if product.ndim == 3:
        return product.sum((1, 2))
    return product.sum(0) if product.ndim == 2 else product


def of_crp(network: nn.Module, lower: str, layer: str, images: Tensor, units: Tensor, composite=None) -> Tensor:
    """The vectors (P, C') as PURE's published code has zennit-crp make them: images (P, ...), a unit (P,) for each."""
    from crp.attribution import CondAttribution
    from crp.concepts import ChannelConcept
    from zennit.core import Composite

    found = CondAttribution(network)(
        images.clone().requires_grad_(),
        [{layer: [unit]} for unit in units.tolist()],
        composite or Composite(),
        record_layer=[lower],
        start_layer=layer,
        init_rel=lambda activations: activations.clamp(min=0),
    )
    relevance = found.relevances[lower]
    product = relevance * found.activations[lower] if composite is None else relevance
    return ChannelConcept().attribute(product, abs_norm=True).detach()
