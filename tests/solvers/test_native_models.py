"""Models of other packages are sent to what makes problems of them, and nothing is imported for that."""

import pytest
import torch

import mapgrad


def pulp_model():
    pulp = pytest.importorskip("pulp")
    return pulp.LpProblem("shop")


def cp_model():
    return pytest.importorskip("ortools.sat.python.cp_model").CpModel()


def mathopt_model():
    return pytest.importorskip("ortools.math_opt.python.mathopt").Model()


def highs_model():
    model = pytest.importorskip("highspy").Highs()
    model.silent()
    return model


def derived_model():
    pulp = pytest.importorskip("pulp")
    return type("Shop", (pulp.LpProblem,), {})("shop")


def gurobi_like():
    return type("Model", (), {"__module__": "gurobipy._model"})()


MODELS = [
    (pulp_model, r"mapgrad_pulp\.from_model\(model, variables\)"),
    (derived_model, r"mapgrad_pulp\.from_model\(model, variables\)"),
    (cp_model, r"mapgrad_ortools\.from_cp_model\(model, variables\)"),
    (mathopt_model, r"mapgrad_ortools\.from_mathopt\(model, variables\)"),
    (highs_model, r'model\.writeModel\("model\.mps"\) and mapgrad\.IntegerProgram\.from_mps\("model\.mps"\)'),
    (gurobi_like, r'model\.write\("model\.mps"\) and mapgrad\.IntegerProgram\.from_mps'),
]


@pytest.mark.parametrize(("make", "advice"), MODELS, ids=lambda value: getattr(value, "__name__", ""))
@pytest.mark.parametrize(
    "call",
    [
        lambda model: mapgrad.get_solver("auto", model),
        lambda model: mapgrad.get_solver("highs", model),
        lambda model: mapgrad.get_solver(model, mapgrad.KSubset(3, 1)),
        lambda model: mapgrad.get_solver(model, None),
        lambda model: mapgrad.get_solver("highs", None)(torch.zeros(1, 3), problems=[model]),
        lambda model: mapgrad.MAPLayer(model),
    ],
    ids=["problem of auto", "problem", "solver", "solver without a problem", "problems", "layer"],
)
def test_a_model_is_sent_to_its_function(make, advice, call):
    model = make()
    with pytest.raises(TypeError, match=advice):
        call(model)


def test_the_functions_exist():
    mapgrad_pulp = pytest.importorskip("mapgrad_pulp")
    mapgrad_ortools = pytest.importorskip("mapgrad_ortools")
    assert callable(mapgrad_pulp.from_model)
    assert callable(mapgrad_ortools.from_cp_model)
    assert callable(mapgrad_ortools.from_mathopt)
    assert callable(mapgrad.IntegerProgram.from_mps)


def test_other_things_are_refused_as_before():
    for value in (3, object(), [1]):
        with pytest.raises(TypeError) as caught:
            mapgrad.get_solver("highs", value)
        assert "model of" not in str(caught.value)

    class Model:
        """Of nobody's package."""

    with pytest.raises(TypeError, match="a solver is a name"):
        mapgrad.get_solver(Model(), mapgrad.KSubset(3, 1))


def test_no_package_is_imported(run_program):
    code = (
        "import sys, mapgrad\n"
        "try:\n    mapgrad.get_solver(type('LpProblem', (), {'__module__': 'pulp.pulp'})(), None)\n"
        "except TypeError as error:\n    print('mapgrad_pulp.from_model' in str(error))\n"
        "print(sorted({'pulp', 'ortools', 'highspy', 'mapgrad_pulp'} & set(sys.modules)))"
    )
    answer = run_program(code)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.split("\n")[:2] == ["True", "[]"]
