from .own_pyro.building import from_pyro as from_pyro
from .own_vae.building import from_vae as from_vae
from .protocol import Problem as Problem
from .registry import load_problem as load_problem
from .registry import problem_catalogue as problem_catalogue
from .weights import WeightsProblem as WeightsProblem
