"""Lets a CUDA build of torchvision be imported beside a CPU build of torch. Copied into the environment by setup_environment.py, only where needed.

Such a torchvision cannot load its compiled operators, and fails at import because it registers Python halves of `nms` and
`qnms`, whose schemas those operators would have declared. Declaring the schemas first is enough: nothing here calls them.
"""

import sys


class _DeclareOperators:
    """An import hook that acts once, just before torchvision is first imported, and finds no module itself."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name != "torchvision":
            return
        sys.meta_path.remove(self)
        import torch

        if torch.version.cuda is None:
            for operator in ("nms", "qnms"):
                torch.library.define(
                    f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                )


sys.meta_path.insert(0, _DeclareOperators())
