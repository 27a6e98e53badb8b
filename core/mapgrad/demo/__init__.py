"""The demo behind ``mapgrad demo``: a network learns to read terrain from routes alone.

Importing this package loads neither torch nor matplotlib; its private modules do.
"""

from mapgrad.demo._estimators import EstimatorName

__all__ = ["EstimatorName"]
