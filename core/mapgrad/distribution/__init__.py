"""Laws of states in the style of torch.distributions: of a perturbed θ, and of programs with random parameters."""

from mapgrad.distribution._perturb_and_map import Atoms, PerturbAndMAP
from mapgrad.distribution._random_program import RandomProgram, floored_normal

__all__ = ["Atoms", "PerturbAndMAP", "RandomProgram", "floored_normal"]
