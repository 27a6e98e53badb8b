"""What a layer tells of its passes: statistics, callbacks, the last answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from mapgrad.gradients._callbacks import Callbacks
from mapgrad.gradients._monitor import Monitor

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

    from mapgrad.batching import Solver
    from mapgrad.gradients._callbacks import Callback
    from mapgrad.gradients.estimators import Estimator
    from mapgrad.solutions import Solutions


class Observed(nn.Module):
    """A module whose passes are counted and can be looked at.

    Attributes:
        solver: What answers.
        estimator: What makes gradients.
        monitor: Counts passes, and keeps the last answers.
        callbacks: Get the statistics.
    """

    solver: Solver
    estimator: Estimator

    def __init__(self) -> None:
        super().__init__()
        self.monitor = Monitor()
        self.callbacks = Callbacks()

    def begin(self, key: int) -> None:
        """Begin a training step, as `Estimator.begin`; a call of the layer does so."""
        self.estimator.begin(key)

    @property
    def stats(self) -> dict[str, float]:
        """Counts; reading them changes nothing.

        Those of `Solver.stats`, since the solver was made and for all layers that share it; but `clipped` counts the
        rows of this layer's forward passes, and `clipped_backward` those of its backward passes, whose steps may well
        leave the domain. Over the backward passes with a target, `improvable` counts the rows that another answer, of
        those that other rows and samples got, would serve better to first order, and `dead` those of them whose answer
        the step didn't change: by their means where the solver averages, and some rows for all of a pass of more than
        8,192 entries. `unsolved` counts the rows of this layer's forward passes that ``on_error="nan"`` or
        ``"zero_grad"`` filled in, and `unsolved_backward` those that failed in a backward pass alone, whose gradient
        is 0; `failed` counts each solve of both. A checkpoint's repeated call counts only in what the solver did.
        Estimators may add more: `lam` or `beta`, λ or β of the last step or the coming one: ranks
        that share β take it in as the next step begins, and show one change less until then.

        As they were lately, not since the beginning, and once there is something to tell: `sparsity`, which share of
        the gradient's entries the answers of all samples left at 0, and, for several samples that weren't averaged by
        the solver, `snr`, how much of the square of their mean difference of answers is signal, in units of its
        sampling variance (an estimate, at least 0), both over the last 100 to 200 backward passes with a target;
        `scale`, the median spread (see `normalize`) of a hundredth backward pass's rows, as the solver gets them.
        """
        return {**self.solver.stats, **self.monitor.counts(), **self.estimator.stats}

    def add_callback(self, callback: Callback, *, every: int = 100) -> RemovableHandle:
        """Have a function called with the layer's statistics, again and again as it trains.

        ``callback(step, stats)`` gets the number of training passes so far and `MAPLayer.stats`, in the thread of the
        layer's call and at its end, be it compiled or not; passes that a checkpoint repeats don't count. Reading the
        statistics waits for a GPU. What a callback raises comes out of the layer's call, whose answer is then lost, and
        no step is made by half: neither is it swallowed, nor does the next call know of it. Copies of a layer, and what
        is saved, have no callbacks.

        Args:
            callback: The function.
            every: After how many training passes it is called.

        Returns:
            What removes it, as from `torch.nn.Module.register_forward_hook`: ``handle.remove()``, or as a context.

        Raises:
            TypeError: `callback` isn't callable, or `every` isn't an int.
            ValueError: `every` is below 1.

        Example:
            >>> import torch, mapgrad
            >>> layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", mapgrad.KSubset(3, 1)))
            >>> def log(step, stats):  # wandb.log(stats, step=step); trainer.log_dict(stats); writer.add_scalar(…)
            ...     print(step, stats["improvable"])
            >>> with layer.add_callback(log, every=2):
            ...     for _ in range(4):
            ...         z = layer(torch.zeros(3))
            2 0.0
            4 0.0
        """
        return self.callbacks.add(callback, every)

    @property
    def last(self) -> Solutions | None:
        """What the last call answered, or a call of its distribution; None before one, or after it failed.

        `z`, `status` and a program's `variables` are [*batch, …], or [S, *batch, …] where S > 1 states were drawn,
        lists as θ; `mask`, [*batch] bool, tells which rows have an answer in all samples, and `failed` which states
        were filled in, as ``on_error="nan"`` or ``"zero_grad"`` says. z may share memory with the layer's output; where
        the solver averages, it is found again now, from θ as it was. `causes` has the first sample's error of each row
        where any sample raised; `stats` and `seconds` sum over the call's solves, all samples counted. It has no
        objectives and bounds: `layer.solver.solve` tells them.
        It is kept until the next call, isn't saved or copied with the layer, and is None after one that torch.compile,
        torch.vmap or torch.func traced. A checkpoint's repeated call leaves it as it is.
        """
        return None if self.monitor.last is None else self.monitor.last.solutions()
