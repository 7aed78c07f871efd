"""Small networks run faster on one thread than they can be shared out."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
