"""Rows of a sweep, written by hand."""

from puppetize.sweep.row import Row

HOSTILE = "</script><script>document.title='owned'</script><!--<script>\u2028&amp;\"'`|"


def a_row(model, ratio=4.0, max_ratio=8.0, family="net", zoo="timm", params=1_000_000, **columns):
    """A CNN of which all but 100,000 parameters are generated."""
    original = 4 * params + 1000
    stored = round(original / ratio)
    values = {
        "model": model,
        "zoo": zoo,
        "family": family,
        "status": "passed",
        "img_size": 224,
        "gmacs": 1.5,
        "params": params,
        "param_count": params / 1e6,
        "convs": 10,
        "conv_params": params - 100_000,
        "sites": 8,
        "kept": 2,
        "kept_reasons": {"depthwise; small": 2},
        "original_bytes": original,
        "stored_bytes": stored,
        "ratio": original / stored,
        "max_ratio": max_ratio,
        "original_parts": {"generated convolutions": original - 1000, "container": 1000},
        "stored_parts": {"puppeteer": stored - 1500, "container": 1500},
        "versions": {"torch": "2.9.0", "timm": "1.0.31"},
    }
    return Row(**{**values, **columns})


def a_transformer(model, **columns):
    return a_row(model, 1.0, 1.01, "vit", **{"conv_params": 100_000, **columns})


def a_failure(model, reason="shapes depend on values", **columns):
    return Row(model, zoo="torchvision", family="rcnn", status="failed", reason=reason, **columns)
