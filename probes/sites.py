"""Where in a block activations are read: the module of a site, and whether its input or output is meant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from corrector.errors import UserError

Site = Literal["resid_pre", "resid_post", "attn_out", "mlp_out"]
SITES: tuple[Site, ...] = get_args(Site)

# Gemma2 normalises what a sublayer writes before adding it, so there the site is that norm; its names come first
# because Llama's `post_attention_layernorm` is another thing (the norm before the MLP).
_ATTENTION = ("self_attn", "attn", "attention")
_SANDWICH = {"attn_out": "post_attention_layernorm", "mlp_out": "post_feedforward_layernorm"}


def check_site(site: str) -> Site:
    """The site itself; UserError names the ones there are."""
    for known in SITES:
        if site == known:
            return known
    raise UserError(f"site={site!r} is not one of {', '.join(SITES)}; choose --site among them")


def submodule(block: nn.Module, site: Site) -> nn.Module:
    """The module whose input (resid_pre) or output (all others) is the site, for the five known architectures.

    `attn_out` and `mlp_out` are what is added to the residual stream: resid_post = resid_pre + attn_out + mlp_out.
    """
    if site in ("resid_pre", "resid_post"):
        return block
    parts = dict(block.named_children())
    if "post_feedforward_layernorm" in parts:
        return parts[_SANDWICH[site]]
    for name in _ATTENTION if site == "attn_out" else ("mlp",):
        if name in parts:
            return parts[name]
    raise UserError(
        f"site={site!r} is not known in {type(block).__name__} (parts {', '.join(parts)}); read resid_pre or resid_post"
    )


def read_hook(block: nn.Module, site: Site, read: Callable[[Tensor], None]) -> RemovableHandle:
    """Register a hook that passes the site's tensor [batch, seq, d] to `read` at every forward."""
    module = submodule(block, site)
    if site == "resid_pre":

        def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            read(args[0] if args else kwargs["hidden_states"])

        return module.register_forward_pre_hook(before, with_kwargs=True)

    def after(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        read(output[0] if isinstance(output, tuple) else output)

    return module.register_forward_hook(after)
