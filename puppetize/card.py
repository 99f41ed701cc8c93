"""The model card."""

from __future__ import annotations

from puppetize.report import Report


def model_card(report: Report) -> str:
    """Markdown with the report and how to load the model."""
    given = "" if "/" in report.model else ", model=the_original_network"
    return f"""---
library_name: puppetize
tags:
- image-classification
- model-compression
---

# {report.model}, puppetized

{report.original_bytes:,} bytes became {report.stored_bytes:,}: {report.ratio:.1f} times smaller.

```python
from puppetize import Puppet

puppet = Puppet.from_pretrained("."{given})   # a torch.nn.Module
plain = puppet.bake()                        # an ordinary model of the original class
```

```
{report}
```
"""
