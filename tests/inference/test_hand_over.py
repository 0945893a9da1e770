"""Finished planes on their way to host memory: nothing is lost, nothing is overwritten too soon."""

from __future__ import annotations

import pytest
import torch

from textseg.inference.hand_over import HandOver


class Late:
    """A device that copies as late as it may, and spoils what it has handed over before."""

    def __init__(self):
        self.running = 0
        self.most = 0

    def __call__(self, buffer, values):
        buffer.fill_(255)
        self.running += 1
        self.most = max(self.most, self.running)

        def wait():
            buffer.copy_(values)
            self.running -= 1

        return wait


def planes(*sizes):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randint(0, 255, (size, 3, 2), dtype=torch.uint8, generator=generator)
        for size in sizes
    ]


@pytest.mark.parametrize("sizes", [(4,), (4, 4, 4, 4, 4), (2, 4, 1, 5, 5, 3), ()])
def test_everything_arrives_in_order_and_one_copy_runs_beside_the_storing(sizes):
    late, kept = Late(), []
    hand_over = HandOver(late)
    sent = planes(*sizes)
    for values in sent:
        hand_over.send(values, lambda arrived: kept.append(arrived.clone()))
    hand_over.finish()
    hand_over.finish()  # nothing arrives twice
    assert len(kept) == len(sent)
    assert all(torch.equal(a, b) for a, b in zip(kept, sent, strict=True))
    assert late.most == min(2, len(sizes))
    assert late.running == 0


def test_two_buffers_serve_any_number_of_planes():
    seen = set()
    hand_over = HandOver(Late())
    for values in planes(*[4] * 9):
        hand_over.send(values, lambda arrived: seen.add(arrived.data_ptr()))
    hand_over.finish()
    assert len(seen) == 2


def test_what_lies_in_host_memory_is_kept_at_once():
    (values,) = planes(3)
    kept = []
    HandOver.of(torch.device("cpu")).send(values, kept.append)
    assert kept[0] is values


@pytest.mark.gpu
def test_planes_of_a_gpu_come_through_pinned_memory():
    kept = []
    hand_over = HandOver.of(torch.device("cuda"))
    sent = planes(64, 64, 64)
    for values in sent:
        on_device = values.cuda()

        def keep(arrived):
            assert arrived.is_pinned()
            kept.append(arrived.clone())

        hand_over.send(on_device, keep)
    hand_over.finish()
    assert all(torch.equal(a, b) for a, b in zip(kept, sent, strict=True))
