"""Where in a block activations are read: the module of a site, and whether its input or output is meant."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, get_args

from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from corrector.errors import UserError
from corrector.loading.shapes import head_size

Site = Literal["resid_pre", "z", "attn_out", "mlp_out", "resid_post"]
SITES: tuple[Site, ...] = get_args(Site)
"""In the order in which a block computes them, which backends that wait for one value after the other go by."""
Side = Literal["input", "output"]

_ATTENTION = ("self_attn", "attn", "attention")
_PROJECTION = ("o_proj", "c_proj", "dense")
# Gemma2 normalises what a sublayer writes before adding it, so there the site is that norm; its names come first
# because Llama's `post_attention_layernorm` is another thing (the norm before the MLP).
_SANDWICH = {"attn_out": "post_attention_layernorm", "mlp_out": "post_feedforward_layernorm"}


def check_site(site: str) -> Site:
    """The site itself; UserError names the ones there are."""
    for known in SITES:
        if site == known:
            return known
    raise UserError(f"site={site!r} is not one of {', '.join(SITES)}; choose --site among them")


def submodule(block: nn.Module, site: Site) -> tuple[nn.Module, Side]:
    """The module whose input (`resid_pre`, `z`) or output is the site, for the five known architectures.

    `attn_out` and `mlp_out` are what is added to the residual stream: resid_post = resid_pre + attn_out + mlp_out.
    `z` is what the heads hand to the attention's output projection, heads side by side (see `by_head`). Source of the
    names: TransformerLens.
    """
    if site in ("resid_pre", "resid_post"):
        return block, "input" if site == "resid_pre" else "output"
    if site == "z":
        return _child(_child(block, _ATTENTION, site), _PROJECTION, site), "input"
    if site in _SANDWICH and "post_feedforward_layernorm" in dict(block.named_children()):
        return block.get_submodule(_SANDWICH[site]), "output"
    return _child(block, _ATTENTION if site == "attn_out" else ("mlp",), site), "output"


def _child(module: nn.Module, names: tuple[str, ...], site: Site) -> nn.Module:
    parts = dict(module.named_children())
    for name in names:
        if name in parts:
            return parts[name]
    raise UserError(
        f"site={site!r} is not known in {type(module).__name__} (parts {', '.join(parts)}); "
        "read resid_pre or resid_post"
    )


def read_hook(block: nn.Module, site: Site, read: Callable[[Tensor], None]) -> RemovableHandle:
    """Register a hook that passes the site's tensor [batch, seq, d] to `read` at every forward."""
    module, side = submodule(block, site)
    if side == "input":
        return module.register_forward_pre_hook(partial(_before, read), with_kwargs=True)
    return module.register_forward_hook(partial(_after, read))


def _before(read: Callable[[Tensor], None], _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    read(args[0] if args else kwargs["hidden_states"])


def _after(read: Callable[[Tensor], None], _: nn.Module, args: tuple[Any, ...], output: Any) -> None:
    read(first(output))


def first(output: Any) -> Tensor:
    """The hidden states among what a module returns: attention returns its weights behind them."""
    return output[0] if isinstance(output, tuple) else output


def site_width(config: Any, site: str) -> int:
    """Numbers a token at a site: n_heads x d_head at `z`, else the model's width."""
    return config.num_attention_heads * head_size(config) if site == "z" else config.hidden_size


def by_head(h: Float[Tensor, "*item width"], n_heads: int) -> Float[Tensor, "*item {n_heads} d_head"]:
    """Activations of site `z` split into their heads. Raises UserError where n_heads does not divide the width."""
    if n_heads < 1 or h.shape[-1] % n_heads:
        raise UserError(f"n_heads={n_heads} does not divide {h.shape[-1]}; give the model's num_attention_heads")
    return h.unflatten(-1, (n_heads, -1))
