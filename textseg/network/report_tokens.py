"""The words of a report as a network takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


class ReportTokens(NamedTuple):
    """Reports of a batch; a report without a token is no report.

    Attributes:
        tokens: ``B T F``; padding may hold anything.
        mask: ``B T`` bool, true where there is a token.
    """

    tokens: Tensor
    mask: Tensor

    @classmethod
    def of(cls, reports: Sequence[Tensor]) -> ReportTokens:
        """Reports of any lengths, each ``T F``, padded to the longest.

        >>> ReportTokens.of([torch.ones(2, 4), torch.ones(0, 4)]).mask.tolist()
        [[True, True], [False, False]]
        """
        lengths = torch.tensor([len(report) for report in reports])
        tokens = pad_sequence(list(reports), batch_first=True)
        mask = torch.arange(tokens.shape[1])[None] < lengths[:, None]
        return cls(tokens, mask.to(tokens.device))

    def to(self, device: torch.device | str) -> ReportTokens:
        """The same tokens on a device."""
        return ReportTokens(self.tokens.to(device), self.mask.to(device))

    def expand(self, scans: int) -> ReportTokens:
        """The one report, for that many scans."""
        return ReportTokens(self.tokens.expand(scans, -1, -1), self.mask.expand(scans, -1))
