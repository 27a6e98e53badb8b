"""The law on engines tells objectives and bounds that aren't those of the points."""

import pytest
import torch

import mapgrad
from mapgrad import EngineAnswer, Status, testing

PROGRAM = mapgrad.IntegerProgram(A_ub=[[1, 1, 1, 1], [-1, 0, 0, -1]], b_ub=[2, -1])


class Engine(mapgrad.ProgramSolver):
    """Honest: tries all points."""

    def build(self, program):
        return program.state_rows()

    def maximize(self, model, call):
        values = model @ call.theta
        value = float(values.max())
        return EngineAnswer(Status.OPTIMAL, model[values.argmax()], *self.says(value, call.way))

    def says(self, value, way):
        return value, value

    def set_bounds(self, model, columns, lower, upper):
        pass

    def set_sides(self, model, rows, lower, upper):
        pass


class SilentEngine(Engine):
    def says(self, value, way):
        return None, None


class WrongFirstWay(Engine):
    """Right in the second way, so that all its answers are."""

    ways = 2


class FlipsTheSign(WrongFirstWay):
    def says(self, value, way):
        return (value, value) if way else (-value, value)


class ScalesTheBound(WrongFirstWay):
    def says(self, value, way):
        return (value, value) if way else (value, 1.01 * value)


class GivesUp(WrongFirstWay):
    def maximize(self, model, call):
        return super().maximize(model, call) if call.way else EngineAnswer(Status.ERROR, text="out of order")


class NeverEnds(Engine):
    def maximize(self, model, call):
        raise RecursionError("too deep")


@pytest.mark.parametrize("engine", [Engine, SilentEngine])
def test_honest_engines_pass(engine):
    assert testing.check_engine_answers(engine, PROGRAM).result == "kept"


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        (FlipsTheSign, r"8 of 8 rows: at θ = \[.*\] maximize says OPTIMAL with objective .*, but x = \[.*\] is worth"),
        (ScalesTheBound, r"8 of 8 rows: .* with bound .*, but x = \[.*\] is worth"),
        (GivesUp, r"8 of 8 rows: .* maximize says ERROR without a point \(out of order\)"),
        (NeverEnds, "maximize raised RecursionError on a plain row: too deep"),
    ],
)
def test_what_the_first_way_says_wrongly_is_told(engine, message):
    with pytest.raises(mapgrad.ConformanceError, match=message) as error:
        testing.check_engine_answers(engine, PROGRAM)
    assert error.value.law == "engine_answers"


def test_the_answers_of_a_wrong_first_way_are_right_all_the_same():
    theta = torch.tensor([[0.5, 0.25, 0.75, -0.5]])
    with mapgrad.get_solver(FlipsTheSign, PROGRAM) as solver:
        assert solver(theta).tolist() == [[1, 0, 1, 0]]


def test_other_solvers_have_no_engine():
    outcome = testing.check_engine_answers(testing.BruteForce, PROGRAM)
    assert outcome.result.startswith("doesn't apply: the solver isn't a ProgramSolver")
