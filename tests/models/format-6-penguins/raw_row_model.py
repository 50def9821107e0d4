"""Raw rows in, predictions out. MLflow runs this file ("models from code"), so nothing is pickled."""

import mlflow

from raw_row_model_430cde7db448.pyfunc import RawRows


class RawRowModel(RawRows, mlflow.pyfunc.PythonModel):
    """The model, as a class of MLflow's."""


mlflow.models.set_model(RawRowModel())
